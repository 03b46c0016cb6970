// How a status looks: a glyph beside the colour, so that it can be told without colours. Pure.

/** @type {Record<string, string>} */
const GLYPHS = {
  PENDING: "◌", READY: "○", RUNNING: "▶", REFINING: "↻", COMPLETED: "✓", FAILED: "✕",
  SKIPPED: "⇥", CANCELLED: "⊘", PAUSED: "‖",
  running: "▶", completed: "✓", failed: "✕", released: "↩", cancelled: "⊘", lost: "☇",
};

export const TASK_STATUSES = /** @type {const} */ ([
  "RUNNING", "READY", "REFINING", "PENDING", "COMPLETED", "FAILED", "SKIPPED", "CANCELLED",
]);
/** In a bar: what has ended well at the left, what has not begun at the right. */
export const BAR_ORDER = /** @type {const} */ ([
  "COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "RUNNING", "REFINING", "READY", "PENDING",
]);
export const PLAN_STATUSES = /** @type {const} */ ([
  "READY", "RUNNING", "PAUSED", "COMPLETED", "FAILED", "CANCELLED",
]);
const ENDED = new Set(["COMPLETED", "FAILED", "SKIPPED", "CANCELLED"]);

/** @param {string} status */
export const glyphOf = (status) => GLYPHS[status] ?? "?";

/** @param {string} status */
export const classOf = (status) => `is-${status.toLowerCase()}`;

/** @param {string} status */
export const hasEnded = (status) => ENDED.has(status);

/**
 * How many tasks of a plan have ended, and how many there are.
 * @param {Record<string, number>} counts
 */
export function progressOf(counts) {
  let ended = 0;
  let total = 0;
  for (const [status, count] of Object.entries(counts)) {
    total += count;
    if (hasEnded(status)) ended += count;
  }
  return { ended, total };
}
