// A classic script in the head, so that the first paint has the colours that were chosen: modules
// run after it. theme.js does the rest.
{
  let theme = null
  try {
    theme = localStorage.getItem('jarvis-stream.theme')
  } catch {
    // Storage is blocked: the system decides.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
}
