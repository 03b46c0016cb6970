// Reads a text/event-stream as it arrives. Pure but for what it is given.
//
// A line ends at LF, CR or both, never at U+2028: the output of a task may hold that.

/** @typedef {{id: string, event: string, data: string}} StreamEvent */

export class StreamParser {
  constructor() {
    this.rest = "";
    this.id = ""; // of the last whole event
    this.next = "";
    /** @type {string[]} */
    this.data = [];
    this.event = "message";
  }

  /** A new connection begins: half an event of the last one is none. */
  begin() {
    this.rest = "";
    this.next = this.id;
    this.clear();
  }

  clear() {
    this.data = [];
    this.event = "message";
  }

  /**
   * The events that `text` completes.
   * @param {string} text
   * @returns {StreamEvent[]}
   */
  feed(text) {
    const found = [];
    this.rest += text;
    // A CR at the end may be half of a CR LF.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.line(line);
      if (event) found.push(event);
    }
    return found;
  }

  /** @param {string} line */
  line(line) {
    if (line === "") {
      this.id = this.next;
      const event = { id: this.id, event: this.event, data: this.data.join("\n") };
      const any = this.data.length > 0;
      this.clear();
      return any ? event : null;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.event = value;
    else if (field === "id" && !value.includes("\0")) this.next = value;
    return null;
  }
}
