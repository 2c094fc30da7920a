import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [react()],
  // A dev server in a container: reachable from outside, on a port that is either free or an error.
  server: { host: true, port: 5173, strictPort: true },
});
