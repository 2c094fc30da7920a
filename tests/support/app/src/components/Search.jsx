export default function Search({ query, onChange }) {
  return (
    <input
      type="search"
      placeholder="Search"
      value={query}
      onChange={(event) => onChange(event.target.value)}
    />
  );
}
