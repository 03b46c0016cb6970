// Gaps: events that a stream could not send. They are shown, never hidden.

/** @typedef {{requested: number, first: number, head: number, reason: string}} Gap */

/** @type {Set<(gap: Gap) => void>} */
const watchers = new Set();

/** A stream of this tab had a gap. @param {Gap} gap */
export function tellGap(gap) {
  for (const watcher of watchers) watcher(gap);
}

/** Be called at each gap. @param {(gap: Gap) => void} watcher */
export function watchGaps(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/**
 * What is missing, and why, for a person.
 * @param {Gap} gap
 */
export function gapTold({ requested, first, head, reason }) {
  if (reason === "expired") return `events ${requested + 1} to ${first - 1} have left the log before they could be sent`;
  if (reason === "ahead_of_log") return `the log ends at ${head}, before event ${requested}, which was seen here: it is another log, or an older copy`;
  if (reason === "forgotten") return `some events after ${requested} are missing: their plans ended long ago and were forgotten`;
  if (reason === "unreadable") return "the place where this browser stopped reading cannot be understood";
  return `some events before ${first} could not be sent (${reason})`;
}
