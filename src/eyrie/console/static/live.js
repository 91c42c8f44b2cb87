// What keeps a page live without taking the reader's place away: patches instead of replacements, and ages that go on.
(() => {
  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;
  const patchAttributes = (old, fresh) => {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    for (const { name, value } of [...fresh.attributes]) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  };
  const patch = (old, fresh) => {
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((node, at) => {
      const there = before[at];
      if (!there) old.appendChild(node);
      else if (!same(there, node)) old.replaceChild(node, there);
      else if (node.nodeType === Node.TEXT_NODE) { if (there.data !== node.data) there.data = node.data; }
      else if (node.nodeType === Node.ELEMENT_NODE) {
        patchAttributes(there, node);
        patch(there, node);
      }
    });
    before.slice(after.length).forEach((node) => node.remove());
  };
  window.eyriePatch = (id, html) => {
    const place = document.getElementById(id);
    if (!place) return;
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    patch(place, fresh.content);
    place.dispatchEvent(new CustomEvent("patched"));
  };
  const age = (ms) => {
    const seconds = Math.floor(Math.max(0, ms) / 1000);
    for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
      if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
    return `${seconds} s`;
  };
  const skew = window.eyrieNow ? window.eyrieNow - Date.now() : 0;
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-since]")) {
      const said = age(Date.now() + skew - Number(time.dataset.since));
      if (time.textContent !== said) time.textContent = said;
    }
  }, 1000);
  // A page asks again only while somebody looks at it: not in a hidden tab, not without its channel, never after it was left.
  const look = () => { if (!document.hidden && window.socket?.connected && window.did_handshake) window.emitEvent("look"); };
  if (window.eyrieEvery) {
    setInterval(look, window.eyrieEvery);
    document.addEventListener("visibilitychange", look);
  }
  // A plain file input, labelled and reached by keyboard, that sends its file where the page listens for one.
  document.addEventListener("change", async (event) => {
    const input = event.target.closest("input[data-sends-to]");
    if (!input || !input.files.length) return;
    const say = (text) => { input.closest(".drop").querySelector("[role=status]").textContent = text; };
    const form = new FormData();
    form.append("file", input.files[0]);
    say("Sending the file …");
    input.disabled = true;
    try {
      const reply = await fetch(input.dataset.sendsTo, { method: "POST", body: form });
      say(reply.ok ? "" : `The file was not taken: ${reply.status} ${await reply.text()}`.slice(0, 300));
    } catch (error) {
      say(`The file could not be sent: ${error.message}`);
    } finally {
      input.disabled = false;
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-toggle-theme]")) window.eyrieToggleTheme();
  });
})();
