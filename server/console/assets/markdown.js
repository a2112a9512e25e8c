// A model's text as a page has it. What it wrote is nobody's to trust: DOMPurify lets through what
// is text, and nothing that loads, runs, styles or asks.

import { html, useEffect, useRef } from "./vendor/preact.js";

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i",
    "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr",
    "ul",
  ],
  ALLOWED_ATTR: ["href", "start", "colspan", "rowspan"],
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

export function Markdown({ text }) {
  const place = useRef(null);
  useEffect(() => {
    const made = globalThis.DOMPurify.sanitize(globalThis.marked.parse(text), ALLOWED);
    for (const link of made.querySelectorAll("a")) {
      link.target = "_blank";
      link.rel = "noopener noreferrer nofollow";
    }
    // Headings of an answer are no headings of the page.
    for (const heading of made.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
      const bold = document.createElement("p");
      const strong = document.createElement("strong");
      strong.append(...heading.childNodes);
      bold.append(strong);
      heading.replaceWith(bold);
    }
    for (const block of made.querySelectorAll("pre")) block.tabIndex = 0;
    place.current.replaceChildren(made);
  }, [text]);
  return html`<div class="markdown" ref=${place}></div>`;
}
