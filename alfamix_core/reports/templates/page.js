"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Inside Kubeflow's frame (srcdoc) a plain fragment link would load the surrounding page.
  document.addEventListener("click", event => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    document.getElementById(link.getAttribute("href").slice(1))?.scrollIntoView();
  });

  // Show a drawing's <title> immediately beside the pointer, in place of the browser's slower tooltip.
  const tip = document.getElementById("tip");
  let shown = null;
  const leave = () => {
    if (shown) shown.owner.prepend(shown.title);
    shown = null;
    tip.hidden = true;
  };
  const beside = event => {
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4)) + "px";
    tip.style.top = (event.clientY + box.height + 24 > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16) + "px";
  };
  document.addEventListener("pointerover", event => {
    const title = event.target.closest?.("svg *, svg")?.closest(":has(> title)")?.querySelector(":scope > title");
    if (!title) return shown && !shown.owner.contains(event.target) ? leave() : undefined;
    leave();
    shown = { owner: title.parentNode, title };
    tip.textContent = title.textContent;
    const picture = document.getElementById(shown.owner.dataset.q ?? "")?.querySelector("img");
    if (picture) tip.prepend(Object.assign(new Image(), { src: picture.src, alt: "" }));
    title.remove();
    tip.hidden = false;
    beside(event);
  });
  document.addEventListener("pointermove", event => { if (shown) beside(event); });
  document.addEventListener("pointerleave", leave);

  for (const map of all("[data-map]")) {
    const drawing = map.querySelector(":scope > svg");
    for (const box of all("[data-layer]", map)) {
      box.addEventListener("change", () => map.classList.toggle("no-" + box.dataset.layer, !box.checked));
    }
    map.querySelector("[data-class]").addEventListener("change", event => {
      for (const mark of drawing.children) mark.classList.toggle("dim", event.target.value !== "" && mark.dataset.c !== event.target.value);
    });
    drawing.addEventListener("click", event => {
      const card = document.getElementById(event.target.closest("[data-q]")?.dataset.q ?? "");
      if (!card) return;
      all(".query.found").forEach(other => other.classList.remove("found"));
      card.hidden = false;
      card.classList.remove("later");
      card.classList.add("found");
      card.scrollIntoView({ block: "center" });
    });
  }

  const grid = document.querySelector("[data-grid]");
  if (grid) {
    const filter = document.querySelector("[data-filter]"), order = document.querySelector("[data-order]");
    const more = document.querySelector("[data-more]"), few = innerWidth < 600 ? 12 : 28;
    let open = false;
    const fold = () => {
      const kept = all(".query:not([hidden])", grid);
      all(".query", grid).forEach(card => card.classList.remove("later"));
      if (!open) kept.slice(few).forEach(card => card.classList.add("later"));
      more.hidden = kept.length <= few;
      more.textContent = open ? "Show fewer" : `Show all ${kept.length}`;
    };
    more.addEventListener("click", () => { open = !open; fold(); });
    const arrange = () => {
      const by = { rank: c => [+c.dataset.rank], confidence: c => [+c.dataset.confidence, +c.dataset.rank], class: c => [+(c.dataset.class || 1e9), +c.dataset.rank] }[order.value];
      const cards = all(".query", grid).sort((a, b) => { const [p, q] = [by(a), by(b)]; return p[0] - q[0] || (p[1] ?? 0) - (q[1] ?? 0); });
      for (const card of cards) card.hidden = filter.value !== "" && card.dataset.class !== filter.value;
      grid.append(...cards);
      fold();
    };
    filter.addEventListener("change", arrange);
    order.addEventListener("change", arrange);
    fold();
  }

  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    const given = [...body.rows];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { none: "descending", descending: "ascending", ascending: "none" }[head.ariaSort || "none"];
        heads.forEach(other => other.removeAttribute("aria-sort"));
        if (next !== "none") head.ariaSort = next;
        const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const sign = next === "ascending" ? 1 : -1;
        const rows = next === "none" ? given : [...given].sort((a, b) => {
          const [p, q] = [value(a), value(b)];
          return sign * (p !== "" && q !== "" && !isNaN(p) && !isNaN(q) ? p - q : p.localeCompare(q, undefined, { numeric: true }));
        });
        body.append(...rows);
      });
    });
  }

  addEventListener("beforeprint", () => all("details").forEach(part => { part.open = true; }));
})();
