// The page at "/": polls the sales, draws them, and buys. No outcome is guessed here: what a
// buyer is told is what GET /api/attempts answered.

const POLL_MS = 500;
const IDLE_POLL_MS = 10_000;
const MAX_BACKOFF_MS = 10_000;
const REQUEST_MS = 8_000;
const PAGE = 24;
const MAX_SHOWN = 240;
const REORDER_MS = 5_000;
const SAMPLES = 60;
const WAIT_SECONDS = 20;
const MAX_REMEMBERED = 50;

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const count = new Intl.NumberFormat();
const cards = new Map();
let shown = PAGE;
let lastOrder = 0;

// ---- Who buys, and what they have asked for ----

// Storage may be switched off; then everything lasts as long as the page.
const memory = new Map();
const stored = {
  get(key) {
    try { return localStorage.getItem(key); } catch { return memory.get(key) ?? null; }
  },
  set(key, value) {
    try { localStorage.setItem(key, value); } catch { memory.set(key, value); }
  },
};

// crypto.randomUUID exists in secure contexts only, and a shop on a LAN address is none.
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const buyer = stored.get("doorbuster.buyer") ?? `guest-${uuid().slice(0, 20)}`;
stored.set("doorbuster.buyer", buyer);
$("buyer").textContent = buyer;

function remembered() {
  try { return JSON.parse(stored.get("doorbuster.attempts")) ?? []; } catch { return []; }
}

function remember(product, attempt) {
  const others = remembered().filter(([of]) => of !== product);
  const all = attempt ? [...others, [product, attempt]] : others;
  stored.set("doorbuster.attempts", JSON.stringify(all.slice(-MAX_REMEMBERED)));
}

// ---- Talking to the service ----

class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.code = problem.code;
    this.canRetry = status === 503 || status === 429 || status === 408 || status >= 500;
    this.retryMs = 1000 * (Number(retryAfter) || 1);
  }
}

async function ask(path, options = {}) {
  const { patience = REQUEST_MS, ...rest } = options;
  const response = await fetch(path, { ...rest, signal: AbortSignal.timeout(patience) });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new Refused(response.status, body, response.headers.get("retry-after"));
}

// Tries again while that can help. What is sent twice carries the same key, so it counts once.
async function askPatiently(path, options, onTrouble) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await ask(path, options);
    } catch (error) {
      if ((error instanceof Refused && !error.canRetry) || attempt === 8) throw error;
      onTrouble(error);
      const rest = error.retryMs ?? Math.min(500 * 2 ** attempt, MAX_BACKOFF_MS);
      await sleep(rest * (0.75 + Math.random() / 2));
    }
  }
}

// The server's clock minus ours: the samples that travelled fastest know best.
const clock = { offset: 0, trip: Infinity };
function learnTime(serverTime, sent, received) {
  const trip = received - sent;
  clock.trip *= 1.02;
  if (trip <= clock.trip) {
    clock.trip = trip;
    clock.offset = Date.parse(serverTime) - (sent + received) / 2;
  }
}
const serverNow = () => Date.now() + clock.offset;

// ---- The sales, polled ----

function onlyProduct() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return location.hash; }
}

async function fetchSales() {
  const sent = Date.now();
  const only = onlyProduct();
  const path = only
    ? `/api/flash-sales/${encodeURIComponent(only)}`
    : `/api/flash-sales?sort=busiest&limit=${shown}`;
  const body = await ask(path);
  learnTime(body.server_time, sent, Date.now());
  return only ? { only, total: 1, sales: [body] } : { only, total: body.total, sales: body.sales };
}

let failures = 0;
let wake = () => {};

async function poll() {
  for (;;) {
    const only = onlyProduct();
    let pause = POLL_MS;
    try {
      const answer = await fetchSales();
      failures = 0;
      if (answer.only === onlyProduct()) draw(answer);
      setLink(true, "Live");
    } catch (error) {
      if (error.code === "unknown_product" || error.code === "invalid_request") {
        failures = 0;
        pause = IDLE_POLL_MS;
        if (only === onlyProduct()) draw({ only, total: 0, sales: [] });
        setLink(true, "Live");
      } else {
        failures += 1;
        setLink(false, "Reconnecting");
      }
    }
    const rest = failures
      ? Math.min(POLL_MS * 2 ** failures, MAX_BACKOFF_MS) * (0.75 + Math.random() / 2)
      : document.hidden ? IDLE_POLL_MS : pause;
    await Promise.race([sleep(rest), new Promise((now) => { wake = now; })]);
  }
}

function setLink(live, text) {
  $("link").classList.toggle("live", live);
  setText($("link-text"), text);
}

// ---- Drawing ----

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function draw({ only, total, sales }) {
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
  $("intro").hidden = single && !only;
  $("find").hidden = Boolean(only) || total <= sales.length;
  $("all").hidden = !only;
  $("more").hidden = Boolean(only) || total <= sales.length || shown >= MAX_SHOWN;
  const running = sales.filter((sale) => sale.state === "open").length;
  setText($("summary"), only ? "" : total > sales.length
    ? `The busiest ${count.format(sales.length)} of ${count.format(total)} sales`
    : `${count.format(total)} sales, ${count.format(running)} open`);
  $("empty").hidden = sales.length > 0;
  if (sales.length === 0) {
    setText($("empty"), only
      ? `There is no sale of the product “${only}”.`
      : "Nothing is on sale yet.\nAs soon as a sale is set up, it appears here.");
  }
}

// The busiest come first, but nothing moves under a pointer or a keyboard's focus.
function reorder(grid, sales) {
  const isNew = grid.childElementCount !== reorder.seen;
  const busy = grid.matches(":hover") || grid.contains(document.activeElement);
  if (!isNew && (busy || Date.now() - lastOrder < REORDER_MS)) return;
  lastOrder = Date.now();
  reorder.seen = grid.childElementCount;
  sales.forEach((sale, place) => {
    const { root } = cards.get(sale.product_id);
    if (grid.children[place] !== root) grid.insertBefore(root, grid.children[place] ?? null);
  });
}

function newCard(product) {
  const root = $("card").content.firstElementChild.cloneNode(true);
  const find = (name) => root.querySelector(`.${name}`);
  const card = { root, product, samples: [], busy: false, sale: null };
  for (const name of ["name", "price", "state", "when", "left", "of", "bar", "available",
    "reserved", "accepted", "refused", "rate", "line", "area", "buy", "answer"]) {
    card[name] = find(name);
  }
  card.name.href = `#${encodeURIComponent(product)}`;
  card.buy.addEventListener("click", () => buy(card));
  const earlier = remembered().find(([of]) => of === product);
  // What became of an earlier request is shown if it can be told; if not, nothing is lost.
  if (earlier) follow(card, earlier[1], "").catch(() => {});
  return card;
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
  if (card.state_now !== sale.state) {
    card.root.classList.remove(card.state_now);
    card.root.classList.add(sale.state);
    card.state_now = sale.state;
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
  card.buy.disabled = card.busy || state !== "open";
  setText(card.buy, card.busy ? "Waiting for your turn" : BUTTONS[state]);
}

function price({ minor, currency }) {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
  return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

function drawTime(card) {
  const { sale } = card;
  const now = serverNow();
  const opens = Date.parse(sale.opens_at) - now;
  const closes = sale.closes_at ? Date.parse(sale.closes_at) - now : null;
  const limit = sale.limit_per_buyer ? `${count.format(sale.limit_per_buyer)} a person` : "";
  let text = limit;
  if (sale.state === "scheduled") {
    text = opens > 0 ? `in ${duration(opens)}` : "any moment now";
  } else if (closes !== null && closes > 0 && sale.state !== "closed") {
    text = [limit, `closes in ${duration(closes)}`].filter(Boolean).join(" · ");
  }
  setText(card.when, text);
  drawHold(card);
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

// ---- Attempts a second ----

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

async function buy(card) {
  card.busy = true;
  drawButton(card);
  say(card, "", "Asking for one");
  try {
    const receipt = await askPatiently(
      `/api/flash-sales/${encodeURIComponent(card.product)}/order`,
      {
        method: "POST",
        headers: {
          "content-type": "application/json", "x-buyer-id": buyer, "idempotency-key": uuid(),
        },
        body: JSON.stringify({ quantity: 1 }),
      },
      () => say(card, "", "Still asking", "The service is busy. Your request counts once."),
    );
    remember(card.product, receipt.attempt_id);
    await follow(card, receipt.attempt_id, "");
  } catch (error) {
    say(card, "no", "That did not work", `${error.message} You can try again.`);
  }
  card.busy = false;
  if (card.sale) drawButton(card);
}

// Follows an attempt until it is decided. Ends by itself when the card is gone.
async function follow(card, attemptId, query) {
  let trouble = 0;
  while (cards.get(card.product) === card || !card.sale) {
    try {
      const wait = trouble ? 1 : card.asked ? WAIT_SECONDS : 0;
      const path = `/api/attempts/${attemptId}?wait=${wait}${query}`;
      const attempt = await ask(path, { patience: 1000 * (wait + 10) });
      trouble = 0;
      if (attempt.status !== "queued") return answer(card, attempt);
      // The first look is immediate, so that the place in line shows before the wait.
      card.asked = true;
      const ahead = attempt.ahead === 0 ? "You are next." : attempt.ahead === 1
        ? "1 request is ahead of yours." : `${count.format(attempt.ahead)} requests are ahead of yours.`;
      say(card, "", "You are in line", ahead);
    } catch (error) {
      if (error.code === "unknown_attempt") {
        remember(card.product, null);
        return say(card, "", "");
      }
      if (error instanceof Refused && !error.canRetry) throw error;
      trouble += 1;
      say(card, "", "Waiting for the answer", "The connection is slow; your place in line is safe.");
      await sleep(Math.min(500 * 2 ** trouble, MAX_BACKOFF_MS));
    }
  }
  return undefined;
}

const REASONS = {
  unknown_product: ["There is no such sale", ""],
  not_open_yet: ["Too early", "The sale had not opened when your turn came. Try again when it opens."],
  closed: ["Too late", "The sale was over when your turn came."],
  paused: ["The sale is paused", "Try again when it goes on."],
  invalid_quantity: ["That quantity cannot be bought", "Ask for another quantity."],
  over_buyer_limit: ["You have as many as one person may have", "Give one back to buy another."],
  sold_out: ["Sold out", "All were taken before your turn came."],
  not_enough_left: ["Not enough left", "Fewer were left than you asked for."],
};

function answer(card, attempt) {
  card.asked = false;
  const order = attempt.order_number ? `Order ${attempt.order_number}` : "";
  const back = () => giveBack(card, attempt);
  switch (attempt.status) {
    case "sold":
      return say(card, "yes", "It is yours", `${order}.`, ["Give it back", back]);
    case "reserved":
      say(card, "yes", "Held for you", `${order}.`, ["Give it back", back]);
      card.hold = { until: Date.parse(attempt.hold_until), order, attempt: attempt.attempt_id };
      return drawHold(card);
    case "cancelled":
      return say(card, "", "Given back", `${order} is cancelled. The unit is on sale again.`);
    case "expired":
      return say(card, "no", "Your hold ran out", `${order} was not completed in time. Buy again while any are left.`);
    default: {
      const [title, text] = REASONS[attempt.reason] ?? ["Refused", attempt.reason];
      const comeBack = ["sold_out", "not_enough_left"].includes(attempt.reason) && attempt.retry_can_help
        ? " Some are held and may come back; try again then." : "";
      return say(card, "no", title, text + comeBack);
    }
  }
}

// A hold counts down; when it is over the service is asked what became of it.
function drawHold(card) {
  const { hold } = card;
  if (!hold) return;
  const left = hold.until - serverNow();
  const text = card.answer.querySelector("p");
  if (left > 0) {
    // Counted down for the eye only; reading every second aloud would be a nuisance.
    text.setAttribute("aria-live", "off");
    setText(text, `${hold.order}, held for ${duration(left)}.`);
  } else if (left < -1500) {
    card.hold = null;
    follow(card, hold.attempt, "").catch(() => {});
  }
}

async function giveBack(card, attempt) {
  say(card, "", "Giving it back");
  try {
    const product = encodeURIComponent(attempt.product_id);
    const receipt = await askPatiently(
      `/api/flash-sales/${product}/order/${attempt.attempt_id}/cancel`,
      { method: "POST", headers: { "x-buyer-id": buyer } },
      () => say(card, "", "Still giving it back", "The service is busy."),
    );
    const { partition, offset } = receipt.position;
    await follow(card, attempt.attempt_id, `&at_least=${partition}:${offset}`);
  } catch (error) {
    say(card, "no", "That did not work", error.message);
  }
}

function say(card, kind, title, text = "", action = null) {
  card.hold = null;
  card.answer.className = `answer ${kind}`;
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
  card.answer.replaceChildren(...parts);
}

// ---- Beginning ----

$("more").addEventListener("click", () => {
  shown = Math.min(shown + PAGE, MAX_SHOWN);
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
