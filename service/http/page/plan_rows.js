// The rows of the list of plans when its beginning has been read anew. Pure.

/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {{plans: Plan[], next: string | null}} Rows */

/**
 * The fresh rows, and behind them those that were shown after the last of these.
 * @param {Rows} before
 * @param {Rows} fresh the beginning of the same list as it is now
 * @returns {Rows}
 */
export function renewed(before, fresh) {
  const last = fresh.plans.at(-1);
  const at = last ? before.plans.findIndex((each) => each.plan_id === last.plan_id) : -1;
  if (!fresh.next || at < 0) return fresh;
  const known = new Set(fresh.plans.map((each) => each.plan_id));
  const rest = before.plans.slice(at + 1).filter((each) => !known.has(each.plan_id));
  return rest.length ? { plans: [...fresh.plans, ...rest], next: before.next } : fresh;
}

/**
 * The rows with a further page behind them; a row that is there already is not added.
 * @param {Rows} before
 * @param {Rows} page
 * @returns {Rows}
 */
export function added(before, page) {
  const known = new Set(before.plans.map((each) => each.plan_id));
  const more = page.plans.filter((each) => !known.has(each.plan_id));
  return { plans: [...before.plans, ...more], next: page.next };
}
