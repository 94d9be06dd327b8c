// What scrolls sideways can be reached with the keyboard, and only that.
function makeReachable() {
  for (const box of document.querySelectorAll("pre, .table-wrapper")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

makeReachable();
addEventListener("resize", makeReachable);
