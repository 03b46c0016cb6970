// The one event stream of a browser, shared by all tabs: browsers allow six connections per host.
//
// Each tab says which plan it shows ("" for all). It gets the events of that plan in batches, or,
// for all plans, only which plans changed. A tab that comes back says the last sequence it saw, and
// learns whether this worker still knows everything since.

const BATCH_MS = 150;
const KEPT = 20_000; // events that a tab may have slept through

const TYPES = [
  "plan.submitted", "plan.paused", "plan.resumed", "plan.cancelled", "plan.retried",
  "plan.finished", "plan.forgotten", "task.claimed", "task.started", "task.progress", "task.completed",
  "task.failed", "task.released",
];

/** @typedef {{plan_id: string, sequence: number, line: string}} Kept an event as it came */
/** @typedef {{port: MessagePort, plan: string, waiting: string[], changed: Set<string>}} Tab */

/** @type {Set<Tab>} */
const tabs = new Set();
/** @type {Kept[]} */
let kept = [];
/** @type {EventSource | null} */
let source = null;
let state = "connecting";
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let closing = 0;
let cursor = ""; // everything up to there was heard

/** @param {object} message */
function tellAll(message) {
  for (const tab of tabs) tab.port.postMessage(message);
}

/** @param {string} next */
function become(next) {
  if (state === next) return;
  state = next;
  tellAll({ state });
}

function connect() {
  source?.close();
  // The browser's own retry sends the cursor; after an answer that ended the source it does not.
  source = new EventSource(cursor === "" ? "../v1/events" : `../v1/events?after=${cursor}`);
  source.onopen = () => become("live");
  source.onerror = () => {
    become("connecting");
    // The browser gives up for good after an answer that is no stream, as 401 or 503.
    if (source?.readyState === EventSource.CLOSED) setTimeout(connect, 2000 + Math.random() * 2000);
  };
  source.addEventListener("hello", (event) => {
    // A stream without a cursor starts at the head: what came before it is not known here.
    if (cursor === "") tellAll({ missed: null });
    reach(event);
  });
  source.addEventListener("gap", (event) => {
    kept = [];
    reach(event);
    tellAll({ gap: JSON.parse(event.data) });
  });
  source.addEventListener("caught_up", reach);
  for (const type of TYPES) {
    source.addEventListener(type, (event) => {
      reach(event);
      take(event.data);
    });
  }
}

/** @param {MessageEvent} event */
function reach(event) {
  if (event.lastEventId !== "") cursor = event.lastEventId;
}

/** @param {string} line */
function take(line) {
  const { plan_id, sequence } = JSON.parse(line);
  kept.push({ plan_id, sequence, line });
  if (kept.length > 2 * KEPT) kept = kept.slice(-KEPT);
  for (const tab of tabs) {
    if (tab.plan === plan_id) tab.waiting.push(line);
    else if (tab.plan === "") tab.changed.add(plan_id);
  }
  timer ??= setTimeout(deliver, BATCH_MS);
}

function deliver() {
  timer = undefined;
  for (const tab of tabs) {
    if (tab.waiting.length) tab.port.postMessage({ events: tab.waiting.splice(0) });
    if (tab.changed.size) {
      tab.port.postMessage({ changed: [...tab.changed] });
      tab.changed.clear();
    }
  }
}

/**
 * @param {Tab} tab
 * @param {{plan: string, after?: number}} wish
 */
function follow(tab, { plan, after }) {
  tab.plan = plan;
  tab.waiting = [];
  tab.changed.clear();
  if (after === undefined || plan === "") return;
  const whole = kept.length > 0 && kept[0].sequence <= after + 1;
  const missed = kept.filter((each) => each.plan_id === plan && each.sequence > after);
  tab.port.postMessage({ missed: whole ? missed.map((each) => each.line) : null });
}

/** @param {MessagePort} port */
function welcome(port) {
  /** @type {Tab} */
  const tab = { port, plan: "", waiting: [], changed: new Set() };
  tabs.add(tab);
  clearTimeout(closing);
  port.onmessage = ({ data }) => {
    if (data.bye) tabs.delete(tab);
    else if (data.again) connect();
    else follow(tab, data);
  };
  port.postMessage({ state });
  if (!source) connect();
}

const here = /** @type {any} */ (self);
if ("onconnect" in here) {
  here.onconnect = (/** @type {MessageEvent} */ event) => welcome(event.ports[0]);
} else {
  // A browser without shared workers: one worker, and one stream, for each tab.
  here.onmessage = (/** @type {MessageEvent} */ event) => welcome(event.ports[0]);
}
