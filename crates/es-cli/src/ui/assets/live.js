// The live tail of the log. Values of events are only ever set as text.
"use strict";
(() => {
  const section = document.getElementById("live");
  const button = section.querySelector("button");
  const status = section.querySelector("[role=status]");
  const body = document.querySelector("#events tbody");
  const caption = document.querySelector("#events caption");
  const longestTable = 500;
  let source = null;
  let last = section.dataset.after;
  let received = 0;
  let announcement = null;

  // Several events in a short time are announced once.
  const announce = (text) => {
    clearTimeout(announcement);
    announcement = setTimeout(() => { status.textContent = text; }, 150);
  };

  const show = (event) => {
    const isReadable = event.reason === undefined;
    const template = section.querySelector(isReadable ? "template.readable" : "template.unreadable");
    const row = template.content.firstElementChild.cloneNode(true);
    const set = (selector, text) => {
      const cell = row.querySelector(selector);
      if (cell) cell.textContent = text;
    };
    set(".id", event.id);
    set(".time", event.time);
    set(".topic", event.topic);
    if (isReadable) {
      set(".aggregate a", event.aggregate);
      set(".version", `v${event.version}`);
      set("summary code", event.preview);
      set("pre", event.lines);
    } else {
      set(".reason", event.reason);
    }
    const link = row.querySelector(".aggregate a");
    if (link) link.href = `aggregate?id=${encodeURIComponent(event.aggregate)}`;
    row.classList.add("new");
    body.prepend(row);
    while (body.rows.length > longestTable) body.rows[body.rows.length - 1].remove();
    document.getElementById("empty")?.remove();
    caption.textContent = `${body.rows.length} ${body.rows.length === 1 ? "event" : "events"}, newest first`;
  };

  const close = () => {
    source?.close();
    source = null;
    button.textContent = "Follow live";
    button.setAttribute("aria-pressed", "false");
    section.classList.remove("open");
  };

  const open = () => {
    received = 0;
    button.textContent = "Pause";
    button.setAttribute("aria-pressed", "true");
    section.classList.add("open");
    source = new EventSource(section.dataset.stream + last);
    source.addEventListener("open", () => announce("Following: new events appear at the top."));
    source.addEventListener("stored", (message) => {
      const event = JSON.parse(message.data);
      last = message.lastEventId;
      received += 1;
      show(event);
      announce(`${received} new ${received === 1 ? "event" : "events"}, the last is ${event.id} ${event.topic}`);
    });
    source.addEventListener("failure", (message) => {
      close();
      announce(`The tail ended: ${message.data}`);
    });
    source.addEventListener("error", () => {
      if (source?.readyState === EventSource.CLOSED) {
        close();
        announce("The tail ended: the tool has stopped, or too many tails are open.");
      } else {
        announce("The connection is interrupted; trying again.");
      }
    });
  };

  button.addEventListener("click", () => {
    if (source === null) {
      open();
    } else {
      close();
      announce("Paused: events since then appear when the tail is followed again.");
    }
  });
  section.hidden = false;
})();
