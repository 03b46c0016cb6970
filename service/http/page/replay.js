// Reads what the log holds of a plan or task, once, up to where it ends now.

import { urlOf, Problem } from "./api.js";
import { StreamParser } from "./sse.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */

const OWN = new Set(["hello", "caught_up", "gap", "closed"]);

/**
 * The events from the beginning to now; `onPart` gets them as they come.
 * @param {{plan: string, task?: string, types?: string, after?: number}} wanted
 * @param {(events: LogEvent[]) => void} onPart
 * @param {AbortSignal} signal
 */
export async function replay({ plan, task, types, after = 0 }, onPart, signal) {
  const url = urlOf("/v1/events", { plan_id: plan, task_id: task, types, after: String(after) });
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const answer = await fetch(url, { credentials: "same-origin", signal: stop.signal });
  if (!answer.ok || !answer.body) throw new Problem(answer.status, "stream", "the events cannot be read");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new StreamParser();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = parser.feed(value);
    const part = events.filter((event) => !OWN.has(event.event)).map((event) => JSON.parse(event.data));
    if (part.length) onPart(part);
    if (events.some((event) => event.event === "caught_up" || event.event === "closed")) {
      stop.abort();
      return;
    }
  }
}
