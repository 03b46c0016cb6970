// The address of what is shown: `#/plans?status=FAILED` and its parts. Pure.

/** @typedef {{path: string[], query: Record<string, string>}} Route */

/**
 * Read a location's hash.
 * @param {string} hash
 * @returns {Route}
 */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decodeOrKeep);
  return { path: parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

/**
 * Write a hash; empty values are left out.
 * @param {string[]} path
 * @param {Record<string, string | number | null | undefined>} [query]
 */
export function hashOf(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const search = new URLSearchParams(wanted.map(([name, value]) => [name, String(value)]));
  const text = search.size ? `?${search}` : "";
  return `#/${path.map(encodeURIComponent).join("/")}${text}`;
}

/** @param {string} part */
function decodeOrKeep(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
