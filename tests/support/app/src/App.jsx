import { useReducer, useState } from 'react';

import Editor from './components/Editor.jsx';
import Footer from './components/Footer.jsx';
import NoteList from './components/NoteList.jsx';
import Preview from './components/Preview.jsx';
import Search from './components/Search.jsx';
import { initialNotes, notesReducer, search } from './lib/notes.js';

export default function App() {
  const [notes, dispatch] = useReducer(notesReducer, initialNotes);
  const [selected, setSelected] = useState(initialNotes[0].id);
  const [query, setQuery] = useState('');
  const note = notes.find(({ id }) => id === selected) ?? notes[0];

  return (
    <>
      <header>
        <h1>Field notes</h1>
        <Search query={query} onChange={setQuery} />
      </header>
      <main>
        <NoteList notes={search(notes, query)} selected={note.id} onSelect={setSelected} />
        <Editor note={note} onChange={(text) => dispatch({ type: 'edit', id: note.id, text })} />
        <Preview note={note} />
      </main>
      <Footer notes={notes} onAdd={() => dispatch({ type: 'add' })} />
    </>
  );
}
