import { marked } from 'marked';

// What people type is shown as text: no HTML of theirs gets through.
export function render(text) {
  const escaped = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

  return marked.parse(escaped, { breaks: true });
}
