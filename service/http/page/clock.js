// Times for people: relative ones, exact ones, durations. Pure.

const STEPS = /** @type {const} */ ([
  [60, 1, "s"],
  [3600, 60, "min"],
  [86400, 3600, "h"],
  [Infinity, 86400, "d"],
]);

/**
 * How long ago, or until, as one number and unit: `12 s ago`, `in 3 min`.
 * @param {string | null} at RFC 3339
 * @param {number} now milliseconds
 */
export function relative(at, now) {
  if (!at) return "–";
  const seconds = (now - Date.parse(at)) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  const text = rough(Math.abs(seconds));
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

/** @param {number} seconds */
function rough(seconds) {
  for (const [below, unit, name] of STEPS) {
    if (seconds < below) return `${Math.floor(seconds / unit)} ${name}`;
  }
  return "";
}

/**
 * A duration with the precision that its size deserves: `3.2 ms`, `1.25 s`, `4 min 10 s`.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return "–";
  if (seconds < 1) return `${(seconds * 1000).toPrecision(seconds < 0.001 ? 1 : 3)} ms`.replace(/\.0+ /, " ");
  if (seconds < 60) return `${seconds.toFixed(2)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/**
 * The exact time in this browser's zone, to the millisecond.
 * @param {string | null} at
 */
export function exact(at) {
  if (!at) return "";
  const date = new Date(at);
  const pad = (/** @type {number} */ n, width = 2) => String(n).padStart(width, "0");
  return (
    `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ` +
    `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.` +
    `${pad(date.getMilliseconds(), 3)} (${at})`
  );
}

/**
 * A count that fits: 950, 12.3k, 4.5M.
 * @param {number} n
 */
export function short(n) {
  if (n < 10_000) return String(n);
  if (n < 1_000_000) return `${(n / 1000).toFixed(1)}k`;
  return `${(n / 1_000_000).toFixed(1)}M`;
}

const SELDOM_MS = 30_000;

/**
 * How long to wait before the next look: twice as long after each one without news, to a bound.
 * @param {number} pause the last one
 * @param {number} oftenMs the shortest, which news brings back
 * @param {boolean} news
 */
export function nextPause(pause, oftenMs, news) {
  return news ? oftenMs : Math.min(pause * 2, Math.max(SELDOM_MS, oftenMs));
}
