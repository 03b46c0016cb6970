// Looks at something again and again while the tab is visible: often while something happens,
// seldom while nothing does, so that pages which lie open cost the service next to nothing.

import { nextPause } from "./clock.js";
import { watchNews } from "./live.js";

/**
 * @param {() => Promise<unknown>} look answers what it saw; what differs from before is news
 * @param {number} oftenMs between two looks while there is news
 * @returns {() => void} ends it
 */
export function lookAgain(look, oftenMs) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let pause = oftenMs;
  let due = 0;
  let over = false;
  let seen = "";
  const plan = () => {
    clearTimeout(timer);
    due = Date.now() + pause;
    timer = setTimeout(now, pause);
  };
  const now = async () => {
    clearTimeout(timer);
    timer = undefined;
    if (document.hidden || over) return;
    const told = JSON.stringify(await look()) ?? "";
    pause = nextPause(pause, oftenMs, told !== seen);
    seen = told;
    if (!over && timer === undefined) plan();
  };
  const soon = () => {
    pause = oftenMs;
    if (timer !== undefined && due > Date.now() + oftenMs) plan();
  };
  const forget = watchNews(soon);
  document.addEventListener("visibilitychange", now);
  now();
  return () => {
    over = true;
    clearTimeout(timer);
    forget();
    document.removeEventListener("visibilitychange", now);
  };
}
