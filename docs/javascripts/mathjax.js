// Formulas that pymdownx.arithmatex marked, by the copy of MathJax 3.2.2 in mathjax/ (npm pack mathjax@3.2.2): nothing
// is fetched from elsewhere, and nothing at all on pages without formulas.
window.MathJax = {
  loader: { load: ["input/tex", "output/chtml", "a11y/assistive-mml"] },
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
  options: { ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex" },
};
if (document.querySelector(".arithmatex")) {
  const script = document.createElement("script");
  script.src = new URL("mathjax/startup.js", document.currentScript.src).href;
  document.head.append(script);
}
