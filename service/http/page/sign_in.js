// Signs in once with a token; the session is a cookie that scripts cannot read.

import { html, useState } from "./vendor/preact.js";
import { post } from "./api.js";
import { Failure } from "./parts.js";

/** @param {{onDone: () => void}} properties */
export function SignIn({ onDone }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await post("/v1/session", { token: token.trim() });
      onDone();
    } catch (problem) {
      setError(/** @type {Error} */ (problem));
    }
  };
  return html`<main><form class="card stack" onSubmit=${send}>
    <h1>Sign in to Holdfast</h1>
    <label>Token <input type="password" name="token" autocomplete="current-password" autofocus size="44" value=${token} onInput=${(/** @type {any} */ event) => setToken(event.currentTarget.value)} /></label>
    <p class="soft">An operator makes one with <code>holdfast token add</code>.</p>
    <${Failure} error=${error} />
    <div><button class="main" type="submit" disabled=${!token.trim()}>Sign in</button></div>
  </form></main>`;
}
