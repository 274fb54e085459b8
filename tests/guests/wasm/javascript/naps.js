// Ten timers of a tenth of a second, at once.

const nap = (number) => new Promise((done) => setTimeout(() => done(number), 100));

export const run = {
  async run() {
    const start = Date.now();
    const numbers = await Promise.all([...Array(10).keys()].map(nap));
    console.log(`${numbers.join(" ")} in ${Math.floor((Date.now() - start) / 100)} tenths`);
  },
};
