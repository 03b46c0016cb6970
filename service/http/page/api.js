// Requests to the API: relative to the page, so that a path prefix works; problems as errors.

const REFUSED = "holdfast-refused";
const BASE = new URL("./", document.baseURI);

/** An answer that is a problem (RFC 9457), or no answer at all. */
export class Problem extends Error {
  /**
   * @param {number} status 0: the service cannot be reached
   * @param {string} code
   * @param {string} detail
   */
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/**
 * The absolute URL of a path of the API.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} [query]
 */
export function urlOf(path, query = {}) {
  const url = new URL(path.replace(/^\//, ""), BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value != null) url.searchParams.set(name, String(value));
  }
  return url.href;
}

/**
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} [query]
 * @returns {Promise<any>}
 */
export async function get(path, query) {
  return JSON.parse(await getText(path, query));
}

/**
 * The text of an answer, for those who must not lose a digit of it.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} [query]
 */
export async function getText(path, query) {
  return request(urlOf(path, query), {});
}

/**
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function post(path, body = {}) {
  const text = await request(urlOf(path), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return text === "" ? null : JSON.parse(text);
}

/** The checks of `/readyz`, whose answer is 503 while one fails. @returns {Promise<any>} */
export async function readiness() {
  return (await fetch(urlOf("/readyz"), { credentials: "same-origin" })).json();
}

/**
 * Be called when an answer says that the session has ended, or that there was none.
 * @param {() => void} watcher
 */
export function watchRefusal(watcher) {
  addEventListener(REFUSED, watcher);
  return () => removeEventListener(REFUSED, watcher);
}

/** End the session. */
export async function signOut() {
  await request(urlOf("/v1/session"), {
    method: "DELETE",
    headers: { "Content-Type": "application/json" },
  });
}

/**
 * @param {string} url
 * @param {RequestInit} options
 */
async function request(url, options) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin", ...options });
  } catch {
    throw new Problem(0, "unreachable", "the service does not answer");
  }
  const text = await answer.text();
  if (answer.ok) return text;
  if (answer.status === 401) dispatchEvent(new Event(REFUSED));
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    told = {};
  }
  throw new Problem(answer.status, told.code ?? "unknown", told.detail ?? answer.statusText);
}

/**
 * A command line that asks the same.
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 */
export function asCurl(method, path, body) {
  const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const parts = ["curl", "-s"];
  if (method !== "GET") parts.push("-X", method, "-H", quoted("Content-Type: application/json"));
  if (body) parts.push("-d", quoted(JSON.stringify(body)));
  parts.push(quoted(urlOf(path)));
  return parts.join(" ");
}
