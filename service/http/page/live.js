// What a tab hears of the browser's one event stream; see `stream_worker.js`.

import { tellGap } from "./gaps.js";
import { eventOf } from "./log_event.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/**
 * @typedef {object} Heard
 * @property {(events: LogEvent[]) => void} [onEvents] of the plan that is followed
 * @property {(plans: string[]) => void} [onChanged] plans that changed
 * @property {() => void} [onMissed] what happened meanwhile is not known: read anew
 */

const WORKER = new URL("./stream_worker.js", import.meta.url);

/** @type {Set<(state: string) => void>} */
const watchers = new Set();
/** @type {Set<() => void>} */
const newsWatchers = new Set();
/** @type {Heard} */
let heard = {};
let paused = false;
let state = "connecting";
let wish = { plan: "", after: /** @type {number | undefined} */ (undefined) };
let last = 0;

const port = open();
port.onmessage = (/** @type {MessageEvent} */ { data }) => {
  if (data.state) {
    state = data.state;
    for (const watcher of watchers) watcher(state);
  }
  if (data.gap) {
    tellGap(data.gap);
    heard.onMissed?.();
  }
  if (paused) return;
  if (data.missed || data.events || data.changed) for (const watcher of newsWatchers) watcher();
  if (data.missed === null) heard.onMissed?.();
  const lines = /** @type {string[]} */ (data.events ?? data.missed ?? []);
  if (lines.length) {
    const events = lines.map(eventOf);
    last = events[events.length - 1].sequence;
    heard.onEvents?.(events);
  }
  if (data.changed) heard.onChanged?.(data.changed);
};
addEventListener("pagehide", () => port.postMessage({ bye: true }));
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

function open() {
  if (typeof SharedWorker === "function") {
    return new SharedWorker(WORKER, { type: "module", name: "holdfast" }).port;
  }
  const worker = new Worker(WORKER, { type: "module" });
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(null, [port2]);
  return port1;
}

/**
 * Hear of one plan from a sequence on, or of all plans ("").
 * @param {string} plan
 * @param {number | undefined} after
 * @param {Heard} hearer
 */
export function follow(plan, after, hearer) {
  heard = hearer;
  wish = { plan, after };
  last = after ?? 0;
  port.postMessage(wish);
  return () => {
    if (heard === hearer) heard = {};
  };
}

/** Hear nothing, until it is called again. @param {boolean} wanted */
export function pause(wanted) {
  paused = wanted;
  if (!wanted) {
    port.postMessage({ ...wish, after: wish.plan ? last : undefined });
    heard.onMissed?.();
  }
}

/** Connect anew, after a sign-in. */
export function again() {
  port.postMessage({ again: true });
}

/** @param {(state: string) => void} watcher */
export function watchState(watcher) {
  watchers.add(watcher);
  watcher(state);
  return () => watchers.delete(watcher);
}

/** Be called whenever something has happened. @param {() => void} watcher */
export function watchNews(watcher) {
  newsWatchers.add(watcher);
  return () => newsWatchers.delete(watcher);
}
