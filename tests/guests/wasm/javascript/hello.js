// Says which language this is, and what its numbers do.

export const run = {
  run() {
    console.log(`JavaScript ${[1, 2, 3].map((n) => n * 2).join(" ")}`);
  },
};
