import { count, plural } from '../lib/words.js';

export default function Footer({ notes, onAdd }) {
  const words = notes.reduce((sum, { text }) => sum + count(text), 0);

  return (
    <footer>
      <button onClick={onAdd}>New note</button>
      <span>
        {plural(notes.length, 'note')}, {plural(words, 'word')}
      </span>
    </footer>
  );
}
