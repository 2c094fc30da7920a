import { excerpt, title } from '../lib/words.js';

export default function NoteList({ notes, selected, onSelect }) {
  return (
    <nav aria-label="Notes">
      {notes.map((note) => (
        <button
          key={note.id}
          aria-current={note.id === selected}
          onClick={() => onSelect(note.id)}
        >
          <strong>{title(note.text)}</strong>
          <small>{excerpt(note.text)}</small>
        </button>
      ))}
    </nav>
  );
}
