// The page at "/": polls the sales, draws them, and buys. The page never guesses an outcome: it
// shows what GET /api/attempts returned.

const POLL_MS = 500;
const IDLE_POLL_MS = 10_000;
const MAX_BACKOFF_MS = 10_000;
const REQUEST_TIMEOUT_MS = 8_000;
const PAGE_SIZE = 24;
const MAX_SALES = 240;
const REORDER_EVERY_MS = 5_000;
const SAMPLES = 60;
const WAIT_SECONDS = 20;
const MAX_SAVED_ATTEMPTS = 50;
const MAX_SHOWN_ATTEMPTS = 6;
// An order whose answer was lost is sent again by itself only this long after the click.
const RESEND_MS = 10 * 60_000;

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const count = new Intl.NumberFormat();
const cards = new Map();
let saleLimit = PAGE_SIZE;
let lastOrder = 0;

// ---- The buyer, and the attempts of this browser ----

// Storage may be disabled or full; then the values last as long as the page.
const memory = new Map();
const storage = {
  get(key) {
    if (memory.has(key)) return memory.get(key);
    try { return localStorage.getItem(key); } catch { return null; }
  },
  set(key, value) {
    try {
      localStorage.setItem(key, value);
      memory.delete(key);
    } catch { memory.set(key, value); }
  },
};

// crypto.randomUUID exists only in secure contexts, and a plain HTTP address on a LAN is not one.
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const buyer = storage.get("doorbuster.buyer") ?? `guest-${uuid().slice(0, 20)}`;
storage.set("doorbuster.buyer", buyer);
$("buyer").textContent = buyer;

// One entry for each attempt: { product, key, at, attempt, state }. `key` is the Idempotency-Key,
// saved before the order is sent. `attempt` is the id by the receipt, null until that is here.
// `state` is "open" until the attempt is decided, then "won" or "lost".
function savedAttempts() {
  let saved = null;
  try { saved = JSON.parse(storage.get("doorbuster.attempts")); } catch { /* It is replaced. */ }
  if (!Array.isArray(saved)) return [];
  // Earlier versions kept [product, attempt].
  return saved.map((entry) => (Array.isArray(entry)
    ? { product: entry[0], key: entry[1], at: 0, attempt: entry[1], state: "open" } : entry));
}

// Saves an entry. When there are too many, those without an order are dropped first.
function saveAttempt(entry) {
  const all = savedAttempts();
  const index = all.findIndex(({ key }) => key === entry.key);
  if (index < 0) all.push(entry); else all[index] = entry;
  while (all.length > MAX_SAVED_ATTEMPTS) {
    const lost = all.findIndex(({ state }) => state === "lost");
    all.splice(Math.max(lost, 0), 1);
  }
  storage.set("doorbuster.attempts", JSON.stringify(all));
}

function forgetAttempt(entry) {
  const others = savedAttempts().filter(({ key }) => key !== entry.key);
  storage.set("doorbuster.attempts", JSON.stringify(others));
}

// ---- Requests to the service ----

class ServiceError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.code = problem.code;
    this.canRetry = status === 503 || status === 429 || status === 408 || status >= 500;
    this.retryMs = 1000 * (Number(retryAfter) || 1);
  }
}

// Paths are relative, so that the page works below any prefix.
async function request(path, options = {}) {
  const { timeoutMs = REQUEST_TIMEOUT_MS, ...rest } = options;
  const response = await fetch(path, { ...rest, signal: AbortSignal.timeout(timeoutMs) });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new ServiceError(response.status, body, response.headers.get("retry-after"));
}

// Retries while that can help. A repeated order carries the same key, so it counts once.
async function requestWithRetry(path, options, onRetry) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await request(path, options);
    } catch (error) {
      if ((error instanceof ServiceError && !error.canRetry) || attempt === 8) throw error;
      onRetry(error);
      const delay = error.retryMs ?? Math.min(500 * 2 ** attempt, MAX_BACKOFF_MS);
      await sleep(delay * (0.75 + Math.random() / 2));
    }
  }
}

// The server's clock minus ours, from the sample with the shortest round trip.
const clock = { offset: 0, trip: Infinity };
function adjustClock(serverTime, sent, received) {
  const trip = received - sent;
  clock.trip *= 1.02;
  if (trip <= clock.trip) {
    clock.trip = trip;
    clock.offset = Date.parse(serverTime) - (sent + received) / 2;
  }
}
const serverNow = () => Date.now() + clock.offset;

// ---- The sales, polled ----

function selectedProduct() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return location.hash; }
}

async function fetchSales() {
  const sent = Date.now();
  const selected = selectedProduct();
  const path = selected
    ? `api/flash-sales/${encodeURIComponent(selected)}`
    : `api/flash-sales?sort=busiest&limit=${saleLimit}`;
  const body = await request(path);
  adjustClock(body.server_time, sent, Date.now());
  return selected
    ? { selected, total: 1, sales: [body] }
    : { selected, total: body.total, sales: body.sales };
}

let pollFailures = 0;
let wake = () => {};

async function poll() {
  for (;;) {
    const selected = selectedProduct();
    let pause = POLL_MS;
    try {
      const answer = await fetchSales();
      pollFailures = 0;
      if (answer.selected === selectedProduct()) draw(answer);
      setConnection(true, "Live");
    } catch (error) {
      if (error.code === "unknown_product" || error.code === "invalid_request") {
        pollFailures = 0;
        pause = IDLE_POLL_MS;
        if (selected === selectedProduct()) draw({ selected, total: 0, sales: [] });
        setConnection(true, "Live");
      } else {
        pollFailures += 1;
        setConnection(false, "Reconnecting");
      }
    }
    const delay = pollFailures
      ? Math.min(POLL_MS * 2 ** pollFailures, MAX_BACKOFF_MS) * (0.75 + Math.random() / 2)
      : document.hidden ? IDLE_POLL_MS : pause;
    await Promise.race([sleep(delay), new Promise((now) => { wake = now; })]);
  }
}

function setConnection(live, text) {
  $("connection").classList.toggle("live", live);
  setText($("connection-text"), text);
}

// ---- Drawing ----

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function draw({ selected, total, sales }) {
  const grid = $("grid");
  const names = new Set(sales.map((sale) => sale.product_id));
  for (const [product, card] of cards) {
    if (!names.has(product)) {
      card.root.remove();
      cards.delete(product);
    }
  }
  for (const sale of sales) {
    let card = cards.get(sale.product_id);
    if (!card) {
      card = newCard(sale.product_id);
      cards.set(sale.product_id, card);
      grid.append(card.root);
    }
    drawSale(card, sale);
  }
  reorder(grid, sales);
  const single = total === 1 && sales.length === 1;
  grid.classList.toggle("single", single);
  $("intro").hidden = single && !selected;
  $("find").hidden = Boolean(selected) || total <= sales.length;
  $("all").hidden = !selected;
  $("more").hidden = Boolean(selected) || total <= sales.length || saleLimit >= MAX_SALES;
  const running = sales.filter((sale) => sale.state === "open").length;
  setText($("summary"), selected ? "" : total > sales.length
    ? `The busiest ${count.format(sales.length)} of ${count.format(total)} sales`
    : `${count.format(total)} sales, ${count.format(running)} open`);
  $("empty").hidden = sales.length > 0;
  if (sales.length === 0) {
    setText($("empty"), selected
      ? `There is no sale of the product “${selected}”.`
      : "Nothing is on sale yet.\nAs soon as a sale is set up, it appears here.");
  }
}

// The busiest sales come first, but no card moves while the pointer or the focus is on them.
function reorder(grid, sales) {
  const isNew = grid.childElementCount !== reorder.cardCount;
  const busy = grid.matches(":hover") || grid.contains(document.activeElement);
  if (!isNew && (busy || Date.now() - lastOrder < REORDER_EVERY_MS)) return;
  lastOrder = Date.now();
  reorder.cardCount = grid.childElementCount;
  sales.forEach((sale, index) => {
    const { root } = cards.get(sale.product_id);
    if (grid.children[index] !== root) grid.insertBefore(root, grid.children[index] ?? null);
  });
}

function newCard(product) {
  const root = $("card").content.firstElementChild.cloneNode(true);
  const find = (name) => root.querySelector(`.${name}`);
  const card = { root, product, samples: [], busy: false, sale: null, views: new Map() };
  for (const name of ["name", "price", "state", "when", "left", "of", "bar", "available",
    "reserved", "accepted", "refused", "rate", "line", "area", "buy", "answers"]) {
    card[name] = find(name);
  }
  card.name.href = `#${encodeURIComponent(product)}`;
  card.buy.addEventListener("click", () => buy(card));
  const earlier = savedAttempts().filter((entry) => entry.product === product);
  for (const entry of earlier.slice(-MAX_SHOWN_ATTEMPTS)) resume(card, entry);
  return card;
}

// Shows an attempt of before the page was loaded. If it has no receipt, nobody knows whether the
// service has the order: it is sent again with its key, which makes it one order in either case.
function resume(card, entry) {
  const view = newView(card, entry);
  // If the result cannot be read now, nothing is lost: the entry stays.
  if (entry.attempt) follow(view).catch(() => {});
  else if (Math.abs(Date.now() - entry.at) < RESEND_MS) place(view);
  else showUnfinished(view, "The answer to your last order was lost");
}

function showUnfinished(view, title) {
  showAnswer(view, "no", title, "Finish the order to see its result. It counts only once.");
}

// The place on a card that shows one attempt. Each attempt has its own, so that none replaces
// another's result.
function newView(card, entry) {
  const root = document.createElement("div");
  root.className = "answer";
  root.setAttribute("role", "status");
  root.setAttribute("aria-live", "polite");
  const view = { card, entry, root, waiting: false, hold: null };
  card.views.set(entry.key, view);
  card.answers.prepend(root);
  const decided = [...card.views.values()].filter(({ entry: { state } }) => state !== "open");
  const surplus = card.views.size - MAX_SHOWN_ATTEMPTS;
  decided.slice(0, Math.max(surplus, 0)).forEach(removeView);
  return view;
}

function removeView(view) {
  view.root.remove();
  view.card.views.delete(view.entry.key);
}

// Removes an attempt from the page and from the storage.
function forget(view) {
  forgetAttempt(view.entry);
  removeView(view);
}

// The attempt that was sent, or was to be sent, and has no receipt.
function unfinished(card) {
  return [...card.views.values()].find(({ entry }) => !entry.attempt);
}

const STATES = {
  scheduled: "Opens", open: "Open", paused: "Paused", closed: "Closed", sold_out: "Sold out",
};
const BUTTONS = {
  scheduled: "Not open yet", open: "Buy one", paused: "Paused", closed: "Closed",
  sold_out: "Sold out",
};

function drawSale(card, sale) {
  const { stock, attempts } = sale;
  if (card.shownState !== sale.state) {
    card.root.classList.remove(card.shownState);
    card.root.classList.add(sale.state);
    card.shownState = sale.state;
  }
  card.sale = sale;
  setText(card.name, sale.name);
  setText(card.price, price(sale.price));
  setText(card.state, STATES[sale.state]);
  setText(card.left, count.format(stock.available));
  const held = stock.reserved ? `, ${count.format(stock.reserved)} held` : "";
  setText(card.of, `left of ${count.format(stock.total)}${held}`);
  const share = (units) => `${stock.total ? (100 * units) / stock.total : 0}%`;
  card.available.style.width = share(stock.available);
  card.reserved.style.width = share(stock.reserved);
  card.bar.setAttribute("aria-valuemax", stock.total);
  card.bar.setAttribute("aria-valuenow", stock.available);
  card.bar.setAttribute("aria-valuetext", `${stock.available} of ${stock.total} left`);
  setText(card.accepted, count.format(attempts.accepted));
  setText(card.refused, count.format(attempts.refused));
  sample(card, sale);
  drawButton(card);
  drawTime(card);
}

function drawButton(card) {
  const { state } = card.sale;
  const unsure = Boolean(unfinished(card));
  card.buy.disabled = card.busy || (state !== "open" && !unsure);
  const text = unsure ? "Finish your order" : BUTTONS[state];
  setText(card.buy, card.busy ? "Waiting for an answer" : text);
}

// How many minor units a currency has is up to ISO 4217, as the service serves it. Browsers have
// other figures for some currencies.
function price({ minor, currency, minor_units: digits }) {
  const format = new Intl.NumberFormat(undefined, {
    style: "currency", currency, minimumFractionDigits: digits, maximumFractionDigits: digits,
  });
  return format.format(minor / 10 ** digits);
}

function drawTime(card) {
  const { sale } = card;
  const now = serverNow();
  const opens = Date.parse(sale.opens_at) - now;
  const closes = sale.closes_at ? Date.parse(sale.closes_at) - now : null;
  const limit = sale.limit_per_buyer ? `${count.format(sale.limit_per_buyer)} per person` : "";
  let text = limit;
  if (sale.state === "scheduled") {
    text = opens > 0 ? `in ${duration(opens)}` : "any moment now";
  } else if (closes !== null && closes > 0 && sale.state !== "closed") {
    text = [limit, `closes in ${duration(closes)}`].filter(Boolean).join(" · ");
  }
  setText(card.when, text);
  card.views.forEach(drawHold);
}

function duration(ms) {
  const seconds = Math.ceil(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60]
    .map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours}:${two(minutes)}:${two(seconds % 60)}`;
  return `${two(minutes)}:${two(seconds % 60)}`;
}

// ---- Attempts per second ----

function sample(card, sale) {
  const at = performance.now();
  const total = sale.attempts.accepted + sale.attempts.refused;
  const before = card.before;
  card.before = { at, total, round: sale.round };
  if (!before || before.round !== sale.round || total < before.total) {
    card.samples = [];
    card.smooth = 0;
  } else {
    const rate = (1000 * (total - before.total)) / Math.max(at - before.at, 1);
    card.smooth = rate === 0 && card.smooth < 0.5 ? 0 : 0.5 * card.smooth + 0.5 * rate;
    card.samples.push(card.smooth);
    if (card.samples.length > SAMPLES) card.samples.shift();
  }
  setText(card.rate, count.format(Math.round(card.smooth)));
  drawSpark(card);
}

function drawSpark(card) {
  const top = Math.max(...card.samples, 1);
  const first = SAMPLES - card.samples.length;
  const points = card.samples.map((rate, i) =>
    `${(first + i) * (60 / (SAMPLES - 1))} ${(23 - 22 * (rate / top)).toFixed(2)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "M0 23L60 23";
  card.line.setAttribute("d", line);
  const left = first * (60 / (SAMPLES - 1));
  card.area.setAttribute("d", points.length > 1 ? `${line}L60 24L${left} 24Z` : "");
}

// ---- Buying ----

// Buys one. An order without a receipt is finished first: it may be in the queue already.
async function buy(card) {
  const before = unfinished(card);
  if (before) {
    await place(before);
    return;
  }
  // Orders stay on the page; what came of other attempts makes room.
  [...card.views.values()].filter(({ entry }) => entry.state === "lost").forEach(forget);
  const entry = { product: card.product, key: uuid(), at: Date.now(), attempt: null, state: "open" };
  saveAttempt(entry);
  await place(newView(card, entry));
}

// Sends the order of an entry, however often it takes, and follows it to its result.
async function place(view) {
  const { card, entry } = view;
  card.busy = true;
  if (card.sale) drawButton(card);
  showAnswer(view, "", "Placing your order");
  try {
    const receipt = await requestWithRetry(
      `api/flash-sales/${encodeURIComponent(entry.product)}/order`,
      {
        method: "POST",
        headers: {
          "content-type": "application/json", "x-buyer-id": buyer, "idempotency-key": entry.key,
        },
        body: JSON.stringify({ quantity: 1 }),
      },
      () => showAnswer(
        view, "", "Still placing your order", "The service is busy. Your order is placed only once.",
      ),
    );
    entry.attempt = receipt.attempt_id;
    const { partition, offset } = receipt.position;
    entry.position = `${partition}:${offset}`;
    saveAttempt(entry);
    await follow(view);
  } catch (error) {
    if (entry.attempt) {
      showAnswer(view, "no", "Your order is placed", `Its result cannot be shown now. ${error.message}`);
    } else if (error instanceof ServiceError && !error.canRetry) {
      // The service refused the request itself, so there is no order. The text stays until the
      // next attempt.
      forgetAttempt(entry);
      Object.assign(entry, { attempt: "none", state: "lost" });
      showAnswer(view, "no", "Something went wrong", `${error.message} You can try again.`);
    } else {
      showUnfinished(view, "No answer from the service");
    }
  }
  card.busy = false;
  if (card.sale) drawButton(card);
}

// Follows an attempt until it is decided or its card is removed. The answer is no older than the
// decision on `position`, by default that of the order itself.
async function follow(view, position = view.entry.position) {
  const { card, entry } = view;
  const query = position ? `&at_least=${position}` : "";
  let failures = 0;
  while (cards.get(card.product) === card || !card.sale) {
    try {
      const wait = failures ? 1 : view.waiting ? WAIT_SECONDS : 0;
      const path = `api/attempts/${entry.attempt}?wait=${wait}${query}`;
      const attempt = await request(path, { timeoutMs: 1000 * (wait + 10) });
      failures = 0;
      if (attempt.status !== "queued") return showAttempt(view, attempt);
      // The first request does not wait, so that the place in the queue is shown at once.
      view.waiting = true;
      const ahead = attempt.ahead === 0 ? "You are next." : attempt.ahead === 1
        ? "1 request is ahead of yours." : `${count.format(attempt.ahead)} requests are ahead of yours.`;
      showAnswer(view, "", "You are in the queue", ahead);
    } catch (error) {
      if (error.code === "unknown_attempt") return forget(view);
      if (error instanceof ServiceError && !error.canRetry) throw error;
      failures += 1;
      showAnswer(view, "", "Waiting for an answer", "The connection is slow. Your place in the queue is safe.");
      await sleep(Math.min(500 * 2 ** failures, MAX_BACKOFF_MS));
    }
  }
  return undefined;
}

const REASONS = {
  unknown_product: ["There is no such sale", ""],
  not_open_yet: ["Too early", "The sale was not open yet when your order arrived. Try again when it opens."],
  closed: ["Too late", "The sale was over when your order arrived."],
  paused: ["The sale is paused", "Try again when it continues."],
  invalid_quantity: ["That quantity cannot be bought", "Choose another quantity."],
  over_buyer_limit: ["You have reached the limit", "You have as many as one person may buy. Cancel an order to buy again."],
  sold_out: ["Sold out", "All units went to orders ahead of yours."],
  not_enough_left: ["Not enough left", "Fewer units were left than you ordered."],
  idempotency_conflict: ["Already ordered", "This order was sent before with another quantity. Its first answer stands."],
  another_round: ["A new round has begun", "Your order was for the round before. Try again."],
};

function showAttempt(view, attempt) {
  view.waiting = false;
  view.entry.state = ["sold", "reserved"].includes(attempt.status) ? "won" : "lost";
  saveAttempt(view.entry);
  const paid = attempt.price ? `, ${price(attempt.price)}` : "";
  const order = attempt.order_number ? `Order ${attempt.order_number}${paid}` : "";
  const cancel = () => cancelOrder(view, attempt);
  switch (attempt.status) {
    case "sold":
      return showAnswer(view, "yes", "It is yours", `${order}.`, ["Cancel this order", cancel]);
    case "reserved":
      showAnswer(view, "yes", "Held for you", `${order}.`, ["Cancel this order", cancel]);
      view.hold = { until: Date.parse(attempt.hold_until), order };
      return drawHold(view);
    case "cancelled":
      return showAnswer(view, "", "Order cancelled", `${order} is cancelled. Its units are on sale again.`);
    case "expired":
      return showAnswer(view, "no", "Your hold expired", `${order} was not completed in time. Buy again while any are left.`);
    default: {
      const [title, text] = REASONS[attempt.reason] ?? ["Refused", attempt.reason];
      const comeBack = ["sold_out", "not_enough_left"].includes(attempt.reason) && attempt.retry_can_help
        ? " Some units are held for others and may become available again."
        : attempt.reason === "over_buyer_limit" && attempt.retry_can_help
          ? " Units that are held for you count until their time is over." : "";
      return showAnswer(view, "no", title, text + comeBack);
    }
  }
}

// A hold counts down. When it is over, the page reads what became of the order.
function drawHold(view) {
  const { hold } = view;
  if (!hold) return;
  const left = hold.until - serverNow();
  const text = view.root.querySelector("p");
  if (left > 0) {
    // Screen readers do not announce the countdown: every second would be too much.
    text.setAttribute("aria-live", "off");
    setText(text, `${hold.order}, held for ${duration(left)}.`);
  } else if (left < -1500) {
    view.hold = null;
    follow(view).catch(() => {});
  }
}

async function cancelOrder(view, attempt) {
  showAnswer(view, "", "Cancelling your order");
  try {
    const product = encodeURIComponent(attempt.product_id);
    const receipt = await requestWithRetry(
      `api/flash-sales/${product}/order/${attempt.attempt_id}/cancel`,
      { method: "POST", headers: { "x-buyer-id": buyer } },
      () => showAnswer(view, "", "Still cancelling your order", "The service is busy."),
    );
    const { partition, offset } = receipt.position;
    const cancellation = await outcomeOf(`${partition}-${offset}`);
    await follow(view, `${partition}:${offset}`);
    if (cancellation.status === "refused") {
      addNote(view, CANCEL_REASONS[cancellation.reason] ?? cancellation.reason);
    }
  } catch (error) {
    // The order stands unless a later answer shows otherwise.
    showAttempt(view, attempt);
    addNote(view, error.message);
  }
}

const CANCEL_REASONS = {
  unknown_order: "It is not held or sold any more.",
  not_yours: "It is another buyer's order.",
};

// Waits until a cancellation of this buyer is decided.
async function outcomeOf(command) {
  const options = { headers: { "x-buyer-id": buyer }, timeoutMs: 1000 * (WAIT_SECONDS + 10) };
  for (;;) {
    const path = `api/commands/${command}?wait=${WAIT_SECONDS}`;
    const outcome = await requestWithRetry(path, options, () => {});
    if (outcome.status !== "pending") return outcome;
  }
}

function addNote(view, text) {
  const note = document.createElement("p");
  note.textContent = `The order could not be cancelled. ${text}`;
  view.root.append(note);
}

function showAnswer(view, kind, title, text = "", action = null) {
  view.hold = null;
  view.root.className = `answer ${kind}`;
  const parts = [];
  if (title) {
    const strong = document.createElement("strong");
    strong.textContent = title;
    parts.push(strong);
  }
  if (text) {
    const p = document.createElement("p");
    p.textContent = text;
    parts.push(p);
  }
  if (action) {
    const button = document.createElement("button");
    [button.textContent] = action;
    button.type = "button";
    button.className = "quiet";
    button.addEventListener("click", action[1], { once: true });
    parts.push(button);
  }
  view.root.replaceChildren(...parts);
}

// ---- Start ----

$("more").addEventListener("click", () => {
  saleLimit = Math.min(saleLimit + PAGE_SIZE, MAX_SALES);
  wake();
});
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("find-id").value.trim();
  if (id) location.hash = encodeURIComponent(id);
  $("find-id").value = "";
});
addEventListener("hashchange", () => wake());
document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); });
setInterval(() => cards.forEach((card) => { if (card.sale) drawTime(card); }), 250);
poll();
