// Answers HTTP: says what was asked for.

addEventListener("fetch", (event) => {
  const { pathname } = new URL(event.request.url);
  event.respondWith(new Response(`JavaScript was asked for ${pathname}\n`));
});
