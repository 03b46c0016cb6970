// How the instance is: readiness, the doctor's answers, log, read models, loops, daemons, streams.

import { html, useEffect, useState } from "./vendor/preact.js";
import { readiness } from "./api.js";
import { duration, short } from "./clock.js";
import { lookAgain } from "./looking.js";
import { Needs } from "./needs.js";
import { Numbers } from "./numbers.js";
import { Failure, useNow, When } from "./parts.js";
import { useLook } from "./workers_screen.js";

const LOOK_MS = 3_000;
const LATE_S = 0.1;

export function HealthScreen() {
  const now = useNow();
  const { told: status, error } = useLook("/v1/ops/status", {}, LOOK_MS);
  const { told: report } = useLook("/v1/ops/doctor", {}, LOOK_MS);
  const ready = useReadiness();
  const { told: hour } = useLook("/v1/ops/history", {}, LOOK_MS);
  return html`<div class="stack">
    <h1>Health</h1>
    <${Failure} error=${error} />
    ${ready && html`<section class="card" aria-label="Readiness">
      <h2>${ready.ready ? "✓ Ready" : "✕ Not ready"}</h2>
      <div class="chips">${ready.checks.map((/** @type {any} */ check) => html`<span key=${check.name} class="chip ${check.ok ? "" : "is-failed"}">${!check.ok ? "✕" : check.warns ? "⚠" : "✓"} ${check.name}: ${check.detail}</span>`)}</div>
    </section>`}
    <${Needs} report=${report} paused=${[]} />
    <${Numbers} hour=${hour} />
    ${report && html`<section class="card"><h2>What the doctor asks</h2><div class="scroll" tabindex="0" role="region" aria-label="Questions"><table class="table"><tbody>
      ${report.answers.map((/** @type {any} */ answer) => html`<tr key=${answer.question}><td class="nowrap"><b>${answer.status === "healthy" ? "✓" : "⚠"} ${answer.status}</b></td><td>${answer.asked}</td><td>${answer.says}</td></tr>`)}
    </tbody></table></div></section>`}
    ${status && html`<section class="card stack">
      <h2>Instance <bdi>${status.instance}</bdi></h2>
      <dl class="facts">
        <dt>version</dt><dd>${status.version}</dd>
        <dt>roles</dt><dd>${status.roles.join(", ")}</dd>
        <dt>log</dt><dd>${status.log.stream}: ${status.log.first} to ${status.log.head}, ${short(Math.round(status.log.bytes / 1024))} kB</dd>
        <dt>read models</dt><dd>at sequence ${status.projector.sequence}, ${status.projector.lag} behind the board</dd>
        <dt>executor</dt><dd>${status.executor ? `${status.executor.in_flight} of ${status.executor.capacity} slots busy, ${status.executor.queued} queued` : "not in this instance"}</dd>
        ${status.executor && status.executor.hosts.length > 0 && html`<dt>worker hosts</dt><dd>${status.executor.hosts.map(hostSays).join("; ")}</dd>`}
        <dt>event streams</dt><dd>${status.sse.connections} open</dd>
      </dl>
      <div class="scroll" tabindex="0" role="region" aria-label="Loops and daemons"><table class="table">
        <thead><tr><th scope="col">Loop or daemon</th><th scope="col">Late</th><th scope="col">Period</th><th scope="col">Last success</th></tr></thead>
        <tbody>
          ${status.loops.map((/** @type {any} */ loop) => html`<tr key=${loop.name}><td>${loop.name}</td><td class=${loop.lag_s > LATE_S ? "is-failed" : ""}>${duration(loop.lag_s)}</td><td>–</td><td>–</td></tr>`)}
          ${status.daemons.map((/** @type {any} */ daemon) => html`<tr key=${daemon.name}><td>${daemon.name}</td><td>${duration(daemon.lateness_s)}</td><td>${duration(daemon.period_s)}</td><td><${When} at=${daemon.last_success} now=${now} /></td></tr>`)}
        </tbody>
      </table></div>
    </section>`}
  </div>`;
}

/** One worker host process in words. @param {any} host */
function hostSays(host) {
  const overrunning = host.overrunning ? `, ${host.overrunning} of them ignore their stop` : "";
  return `process ${host.pid} ${host.state}, runs ${host.running}${overrunning}, ${short(Math.round(host.memory_bytes / 1_000_000))} MB`;
}

/** What `/readyz` says, also while it says that the instance is not ready. */
function useReadiness() {
  const [told, setTold] = useState(/** @type {any} */ (null));
  useEffect(() => lookAgain(async () => {
    const now = await readiness().catch(() => null);
    setTold(now);
    return now?.failing;
  }, LOOK_MS), []);
  return told;
}
