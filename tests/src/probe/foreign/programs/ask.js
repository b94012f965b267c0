// A client on Node's http: METHOD PATH… -- BASE….
const http = require('http');

const words = process.argv.slice(1);
const end = words.indexOf('--');
const asked = words.slice(0, end);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function ask(method, url) {
    return new Promise((resolve, reject) => {
        const body = method === 'POST' ? 'hello' : '';
        const headers = body ? { 'Content-Length': body.length } : {};
        const request = http.request(url, { method, agent, headers, timeout: 10000 }, (response) => {
            const pieces = [];
            response.on('data', (piece) => pieces.push(piece));
            response.on('error', reject);
            response.on('end', () => {
                const { 'content-length': length = '-', 'x-new': added = '-' } = response.headers;
                const came = Buffer.concat(pieces).toString('base64');
                console.log([response.statusCode, length, added, came].join('\t'));
                resolve();
            });
        });
        request.on('error', reject);
        request.end(body);
    });
}

(async () => {
    for (const base of words.slice(end + 1)) {
        for (let i = 0; i < asked.length; i += 2) await ask(asked[i], base + asked[i + 1]);
    }
    agent.destroy();
})().catch((error) => {
    console.error(error);
    process.exit(1);
});
