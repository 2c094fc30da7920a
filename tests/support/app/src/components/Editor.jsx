export default function Editor({ note, onChange }) {
  return (
    <textarea
      aria-label="Note"
      value={note.text}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}
