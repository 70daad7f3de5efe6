"use strict";
(() => {
  const source = document.getElementById("recording").textContent;
  let known;
  const data = () => (known ??= JSON.parse(source));

  const full = (value) => {
    if (Array.isArray(value)) return value.map(full);
    if (value === null || typeof value !== "object") return value;
    const keys = Object.keys(value);
    if (keys.length === 1 && keys[0] === "$once") return data().once[value.$once];
    return Object.fromEntries(keys.map((key) => [key, full(value[key])]));
  };

  const add = (parent, tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    parent.append(element);
    return element;
  };

  const block = (parent, value) => {
    const isText = typeof value === "string" || value.type === "text";
    const text = typeof value === "string" ? value : value.text;
    const shown = isText ? text : JSON.stringify(value, null, 1);
    const element = add(parent, "pre", shown, isText ? "" : "code");
    element.dir = "auto";
    if (!isText) element.tabIndex = 0;
  };

  const show = (parent, packed, said) => {
    const message = full(packed);
    const box = add(parent, "div", undefined, "message");
    const name = message.name ? ` ${message.name}` : "";
    add(box, "b", `${said || message.type}${name}`);
    const blocks = Array.isArray(message.content) ? message.content : [message.content];
    blocks.filter((part) => part !== "").forEach((part) => block(box, part));
    for (const key of ["tool_calls", "invalid_tool_calls"])
      if (message[key]) block(box, { [key]: message[key] });
  };

  const fill = (details) => {
    const slot = details.querySelector(":scope > .slot");
    if (!slot || slot.childNodes.length) return;
    if (details.dataset.call) {
      const [run, call] = details.dataset.call.split(" ");
      const found = data().runs[run].calls[call];
      found.messages.forEach((message) => show(slot, message));
      if (found.message) show(slot, found.message, "reply");
    } else {
      data().runs[details.dataset.run].messages.forEach((message) => show(slot, message));
    }
  };

  document.addEventListener("toggle", (event) => {
    if (event.target.open) fill(event.target);
  }, true);

  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement)
      if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  const copy = async () => {
    try {
      await navigator.clipboard.writeText(source);
      return true;
    } catch {
      const area = add(document.body, "textarea", source);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };

  const cards = () => document.querySelectorAll("details.card, details.answer");
  const said = document.querySelector("[role=status]");
  document.querySelector("footer").addEventListener("click", async (event) => {
    const wanted = event.target.dataset.do;
    if (wanted === "copy") said.textContent = (await copy()) ? "Copied." : "Not allowed here.";
    else if (wanted) cards().forEach((card) => { card.open = wanted === "open"; });
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...cards()].filter((card) => !card.open);
    opened.forEach((card) => { card.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((card) => { card.open = false; }));
})();
