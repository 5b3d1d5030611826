-- Decides on an attempt, once: gives back what has run out, checks the buyer's limit and the
-- stock, holds or sells, and keeps the outcome. Returns the place in line; none without a sale.
-- Without an attempt it only gives back what has run out.
--
-- KEYS: the sale, units by buyer, deadlines of holds. ARGV: product, attempt, buyer, quantity.
-- An attempt is kept as status|reason|product|buyer|quantity|position|decided at|hold until.
local sale, buyers, holds = KEYS[1], KEYS[2], KEYS[3]
local product, id, buyer, quantity = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

if id then
    local known = redis.call('GET', 'attempt:' .. id)
    if false then
        return tonumber(known:match('(%d+)|%d+|%d+$'))
    end
end

local terms = redis.call('HMGET', sale, 'available', 'reserved', 'decided', 'limit', 'hold_ms')
if not terms[1] then
    return nil
end
local available, reserved, position = tonumber(terms[1]), tonumber(terms[2]), tonumber(terms[3])
local limit, hold_ms = tonumber(terms[4]), tonumber(terms[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- An attempt holds once, so many at a time keep up, and none waits long for others' deadlines.
if hold_ms > 0 then
    local due = redis.call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, 100)
    for _, held in ipairs(due) do
        local key = 'attempt:' .. held
        local record = redis.call('GET', key)
        local of, units = record:match('^reserved||[^|]*|([^|]*)|(%d+)|')
        redis.call('SET', key, (record:gsub('^reserved', 'expired')))
        redis.call('HINCRBY', buyers, of, -units)
        available, reserved = available + units, reserved - units
    end
    if #due > 0 then
        redis.call('ZREM', holds, unpack(due))
    end
end

if id then
    position = position + 1
    local status, reason, hold_until = 'sold', '', 0
    local has = limit > 0 and tonumber(redis.call('HGET', buyers, buyer)) or 0
    if limit > 0 and has + quantity > limit then
        status, reason = 'refused', 'over_buyer_limit'
    elseif available < quantity then
        status, reason = 'refused', available == 0 and 'sold_out' or 'not_enough_left'
    else
        available = available - quantity
        redis.call('HINCRBY', buyers, buyer, quantity)
        if hold_ms > 0 then
            status, hold_until, reserved = 'reserved', now + hold_ms, reserved + quantity
            redis.call('ZADD', holds, hold_until, id)
        end
    end
    local record = { status, reason, product, buyer, quantity, position, now, hold_until }
    redis.call('SET', 'attempt:' .. id, table.concat(record, '|'))
end

redis.call('HSET', sale, 'available', available, 'reserved', reserved, 'decided', position)
return position
