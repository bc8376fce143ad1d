// What the page and the script share: a session's five best classes of an image.

// pixels: Uint8Array of (3, size, size), blue first, as mmrepvgg export --with-preprocess --softmax has its input
export async function rank(ort, session, pixels, size) {
  const images = new ort.Tensor('uint8', pixels, [1, 3, size, size]);
  const { scores } = await session.run({ images });
  return Array.from(scores.data, (score, label) => ({ label, score }))
    .sort((a, b) => b.score - a.score)
    .slice(0, 5);
}
