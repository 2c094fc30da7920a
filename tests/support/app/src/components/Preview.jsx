import { useMemo } from 'react';

import { render } from '../lib/markdown.js';

export default function Preview({ note }) {
  const html = useMemo(() => render(note.text), [note.text]);

  return <article dangerouslySetInnerHTML={{ __html: html }} />;
}
