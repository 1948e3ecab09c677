// window.asked says whether the client has asked the server to run the script and has not shown that run to its end.
// Until the server answers, the page looks as if nothing had been asked; under load that takes as long as a test's next step.
const RERUN = (11 << 3) | 2;  // how the field rerun_script of Streamlit's BackMsg begins
const FINISHED = 6;  // the field script_finished of its ForwardMsg
const STATE = "data-test-script-state";
const BETWEEN = 300;  // ms within which the page shows what it was sent, or the next run begins

let shown = false;  // that the script runs, since it was asked to
new MutationObserver(() => {
    if (document.querySelector(`[${STATE}]`)?.getAttribute(STATE) === "running") shown = true;
}).observe(document, { subtree: true, attributes: true, attributeFilter: [STATE] });

function finishes(bytes) {
    let at = 0;
    const number = () => {
        let value = 0;
        for (let unit = 1; ; unit *= 128) {
            const byte = bytes[at++];
            value += (byte & 127) * unit;
            if (byte < 128) return value;
        }
    };
    while (at < bytes.length) {
        const tag = number();
        if (tag >> 3 === FINISHED) return true;
        const length = number();  // or the value itself, of a field that is a number
        if ((tag & 7) === 2) at += length;
    }
    return false;
}

const send = WebSocket.prototype.send;
const heard = new WeakSet();
WebSocket.prototype.send = function (message) {
    if (!heard.has(this)) {
        heard.add(this);
        this.addEventListener("message", ({ data }) => {
            if (!finishes(new Uint8Array(data))) return;
            if (shown) window.asked = false;
            else setTimeout(() => { window.asked = false; }, BETWEEN);
        });
    }
    if (message[0] === RERUN) {
        window.asked = true;
        shown = false;
    }
    return send.call(this, message);
};
