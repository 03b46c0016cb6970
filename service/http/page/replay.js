// Reads what the log holds of a plan or task, once, up to where it ends now.

import { urlOf, Problem } from "./api.js";
import { tellGap } from "./gaps.js";
import { eventOf } from "./log_event.js";
import { StreamParser } from "./sse.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {{plan: string, task?: string, types?: string, after?: number}} Wanted */

const OWN = new Set(["hello", "caught_up", "gap", "closed"]);
const PAUSE_MS = 2_000;

/**
 * The events from the beginning to now; `onPart` gets them as they come. A reading that breaks off
 * goes on where it stopped, until it is whole or `signal` ends it; what is refused for good throws.
 * @param {Wanted} wanted
 * @param {(events: LogEvent[]) => void} onPart
 * @param {AbortSignal} signal
 */
export async function replay(wanted, onPart, signal) {
  const parser = new StreamParser();
  while (!signal.aborted) {
    const after = parser.id || String(wanted.after ?? 0);
    try {
      if (await readOn({ ...wanted, after }, parser, onPart, signal)) return;
    } catch (problem) {
      if (problem instanceof Problem && problem.status < 500) throw problem;
    }
    if (!signal.aborted) await new Promise((done) => setTimeout(done, PAUSE_MS));
  }
}

/**
 * One connection; whether it reached the end of the log.
 * @param {{plan: string, task?: string, types?: string, after: string}} wanted
 * @param {StreamParser} parser
 * @param {(events: LogEvent[]) => void} onPart
 * @param {AbortSignal} signal
 */
async function readOn({ plan, task, types, after }, parser, onPart, signal) {
  const url = urlOf("/v1/events", { plan_id: plan, task_id: task, types, after });
  const stop = new AbortController();
  const onAbort = () => stop.abort();
  signal.addEventListener("abort", onAbort);
  try {
    const answer = await fetch(url, { credentials: "same-origin", signal: stop.signal });
    if (!answer.ok || !answer.body) throw new Problem(answer.status, "stream", "the events cannot be read");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    parser.begin();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      const events = parser.feed(value);
      const part = events.filter((event) => !OWN.has(event.event)).map((event) => eventOf(event.data));
      if (part.length) onPart(part);
      for (const event of events) if (event.event === "gap") tellGap(JSON.parse(event.data));
      if (events.some((event) => event.event === "caught_up")) return true;
    }
  } finally {
    signal.removeEventListener("abort", onAbort);
    stop.abort();
  }
}
