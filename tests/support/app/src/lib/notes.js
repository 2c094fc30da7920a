export const initialNotes = [
  { id: 1, text: '# Hibernation\n\nA dormouse in **torpor** keeps everything it knows.' },
  { id: 2, text: '# Hummingbirds\n\nEvery night, and *back within minutes*.' },
  { id: 3, text: '# To look up\n\n- bears\n- bats\n- frogs that freeze' },
];

export function notesReducer(notes, action) {
  switch (action.type) {
    case 'add':
      return [...notes, { id: Math.max(...notes.map(({ id }) => id)) + 1, text: '# New note' }];
    case 'edit':
      return notes.map((note) => (note.id === action.id ? { ...note, text: action.text } : note));
    default:
      throw new Error(`unknown action ${action.type}`);
  }
}

export function search(notes, query) {
  const wanted = query.trim().toLowerCase();

  return notes.filter(({ text }) => text.toLowerCase().includes(wanted));
}
