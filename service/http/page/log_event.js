// An event of the log as the page keeps it: what it says, and its line, which loses no digit. Pure.

import { parseExact } from "./exact_json.js";

/** @typedef {import("./types.js").LogEvent} LogEvent */

/**
 * @param {string} line JSON
 * @returns {LogEvent}
 */
export function eventOf(line) {
  return { ...JSON.parse(line), line };
}

/**
 * The data of an event with every number as it was written.
 * @param {LogEvent} event
 * @returns {Map<string, any>}
 */
export function exactData(event) {
  return parseExact(event.line).get("data");
}
