import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut } from "../../service/http/page/layers.js";

const task = (id, after = [], kind = "echo") => ({ task_id: id, kind, type: "worker", depends_on: after, status: "READY" });

test("a task stands to the right of all that it needs", () => {
  const { byKey } = layOut([task("a"), task("b", ["a"]), task("c", ["a", "b"]), task("d")]);
  const layer = (key) => byKey.get(key).layer;
  assert.deepEqual(["a", "b", "c", "d"].map(layer), [0, 1, 2, 0]);
});

test("a fan-out of alike tasks is one stack that opens", () => {
  const leaves = Array.from({ length: 500 }, (_, n) => task(`leaf${n}`, ["root"]));
  const tasks = [task("root"), ...leaves, task("join", leaves.map((each) => each.task_id))];
  const closed = layOut(tasks);
  assert.equal(closed.nodes.length, 3);
  assert.equal(closed.byKey.get("stack:leaf0").tasks.length, 500);
  assert.deepEqual(closed.byKey.get("join").from, ["stack:leaf0"]);
  assert.equal(layOut(tasks, new Set(["stack:leaf0"])).nodes.length, 502);
});

test("no two nodes stand in one place", () => {
  const tasks = Array.from({ length: 400 }, (_, n) => task(`t${n}`, n > 3 ? [`t${n - 1 - (n % 4)}`] : [], `k${n % 7}`));
  const places = layOut(tasks).nodes.map((node) => `${node.layer}/${node.row}`);
  assert.equal(new Set(places).size, places.length);
});

test("10,000 tasks in a chain are laid out within a second", () => {
  const tasks = Array.from({ length: 10_000 }, (_, n) => task(`t${n}`, n ? [`t${n - 1}`] : []));
  const began = performance.now();
  assert.equal(layOut(tasks).layers, 10_000);
  assert.ok(performance.now() - began < 5_000); // a quadratic layout takes minutes
});
