// Express with node-redis and the usual helper: `node server.js PORT REDIS_URL`.
const express = require('express');
const { createClient } = require('redis');

const [port, url] = process.argv.slice(2);
const client = createClient({ url });
client.on('error', () => {});

async function getFromCache(key) {
  try {
    const value = await client.get(key);
    return value ? JSON.parse(value) : null;
  } catch {
    return null;
  }
}

const app = express();

app.get('/products', async (req, res) => {
  const products = await getFromCache('cache:product-service:/products');
  if (!products) {
    res.status(404).end();
    return;
  }
  res.json({ cached: true, products });
});

client.connect().then(() => app.listen(Number(port), '127.0.0.1'));
