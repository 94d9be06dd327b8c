// What scrolls sideways can be reached with the keyboard, and only that.
function makeReachable() {
  for (const box of document.querySelectorAll("pre, .table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

makeReachable();
addEventListener("resize", makeReachable);

// Both columns beside the text are landmarks: a screen reader asks for their names.
document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
