// The page: reads the address, shows its screen, and holds what all screens share.

import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/preact.js";
import { get, Problem, signOut, watchRefusal } from "./api.js";
import { AuditScreen } from "./audit_screen.js";
import { HealthScreen } from "./health_screen.js";
import { Help } from "./help.js";
import { gapTold, watchGaps } from "./gaps.js";
import { bindKeys } from "./keys.js";
import * as live from "./live.js";
import { PlanScreen } from "./plan_screen.js";
import { PlansScreen } from "./plans_screen.js";
import { parseRoute } from "./route.js";
import { SignIn } from "./sign_in.js";
import { WorkersScreen } from "./workers_screen.js";

const SCREENS = /** @type {const} */ ([["plans", "Plans"], ["workers", "Workers"], ["audit", "Audit"], ["health", "Health"]]);
const THEMES = /** @type {const} */ (["", "light", "dark"]);

function Page() {
  const [route, setRoute] = useState(parseRoute(location.hash));
  const [gap, setGap] = useState(/** @type {import("./gaps.js").Gap | null} */ (null));
  const [turn, setTurn] = useState(0);
  const [access, setAccess] = useState("asking");
  const [name, setName] = useState("");
  const [help, setHelp] = useState(false);
  useEffect(() => {
    const onHash = () => setRoute(parseRoute(location.hash));
    addEventListener("hashchange", onHash);
    const unbind = bindKeys({ "?": () => setHelp(true) });
    const unwatch = watchGaps((found) => {
      setGap(found);
      setTurn((before) => before + 1);
    });
    return () => {
      removeEventListener("hashchange", onHash);
      unbind();
      unwatch();
    };
  }, []);
  const look = async () => {
    try {
      setName((await get("/v1/session")).name ?? "");
      setAccess("granted");
    } catch (problem) {
      setAccess(problem instanceof Problem && problem.status === 401 ? "refused" : "granted");
    }
  };
  useEffect(() => {
    look();
    const unwatchRefusal = watchRefusal(() => setAccess("refused"));
    // A stream that breaks off may be the end of the session: a revoked token ends it so.
    let before = "";
    const unwatchState = live.watchState((state) => {
      if (before === "live" && state !== "live") look();
      before = state;
    });
    return () => {
      unwatchRefusal();
      unwatchState();
    };
  }, []);
  const leave = async () => {
    await signOut().catch(() => undefined);
    look();
  };
  const [screen = "plans", ...rest] = route.path;
  useEffect(() => {
    document.title = `${[screen, ...rest].join(" / ")} · Holdfast`;
  }, [location.hash]);
  if (access === "asking") return html`<p class="empty" aria-busy="true">…</p>`;
  if (access === "refused") {
    const onDone = () => {
      live.again();
      look();
    };
    return html`<${SignIn} onDone=${onDone} />`;
  }
  return html`
    <header class="bar">
      <a class="brand" href="#/plans"><img src="page/icon.svg" alt="" /> Holdfast</a>
      <nav aria-label="Screens">${SCREENS.map(([name, label]) => html`<a href="#/${name}" aria-current=${screen === name ? "page" : undefined}>${label}</a>`)}</nav>
      <span class="grow"></span>
      <${Live} />
      <${Theme} />
      <button onClick=${() => setHelp(true)} title="Keys (?)" aria-label="Keys">?</button>
      ${name && html`<span class="soft">${name}</span><button class="link" onClick=${leave}>Sign out</button>`}
    </header>
    <main>
      ${gap && html`<p class="notice" role="alert"><b>Events are missing:</b> ${gapTold(gap)}. What is shown has been read anew. <button class="link" onClick=${() => setGap(null)}>dismiss</button></p>`}
      <${Guarded} key=${`${turn} ${screen}/${rest.join("/")}`}><${Screen} screen=${screen} rest=${rest} query=${route.query} /><//>
    </main>
    ${help && html`<${Help} onDone=${() => setHelp(false)} />`}`;
}

/** @param {{screen: string, rest: string[], query: Record<string, string>}} properties */
function Screen({ screen, rest, query }) {
  if (screen === "plans" && rest.length) return html`<${PlanScreen} key=${rest[0]} plan=${rest[0]} query=${query} />`;
  if (screen === "plans") return html`<${PlansScreen} query=${query} />`;
  if (screen === "workers") return html`<${WorkersScreen} />`;
  if (screen === "audit") return html`<${AuditScreen} query=${query} />`;
  if (screen === "health") return html`<${HealthScreen} />`;
  return html`<p class="empty">There is no such screen. <a href="#/plans">Plans</a></p>`;
}

/** Shows what went wrong in a screen instead of an empty page. @param {{children: unknown}} properties */
function Guarded({ children }) {
  const [error, again] = useErrorBoundary();
  if (!error) return children;
  return html`<p class="notice is-error" role="alert">This screen has a fault: ${error.message} <button onClick=${again}>Try again</button></p>`;
}

function Live() {
  const [state, setState] = useState("connecting");
  const [paused, setPaused] = useState(false);
  useEffect(() => live.watchState(setState), []);
  const toggle = () => {
    live.pause(!paused);
    setPaused(!paused);
  };
  useEffect(() => bindKeys({ p: toggle }), [paused]);
  const shown = paused ? "paused" : state;
  return html`<button class="link live is-${shown}" aria-pressed=${paused} onClick=${toggle} title="Pause live updates (p)">${shown}</button>`;
}

function Theme() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(/** @type {any} */ (theme)) + 1) % THEMES.length];
  return html`<button onClick=${() => setTheme(next)} title="Colours: ${theme || "as the system"}" aria-label="Colours: ${theme || "as the system"}">◐</button>`;
}

render(html`<${Page} />`, /** @type {Element} */ (document.getElementById("page")));
