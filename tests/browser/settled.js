// window.settled says whether the page shows all that it was asked for. The state that Streamlit tells is not enough: until
// the server answers, the page looks as if nothing had been asked, and under load that takes as long as a test's next step.
const RERUN = (11 << 3) | 2;  // how the field rerun_script of Streamlit's BackMsg begins
const FINISHED = 6;  // the field script_finished of its ForwardMsg
const STATE = "data-test-script-state";
const BETWEEN = 300;  // ms within which the page shows what it was sent, or the next run begins
const FRAMES = 4;  // within which what was done reaches the client's state, and what the server said is drawn

let asked = false;  // to run the script, and that run has not been shown to its end
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
            if (shown) asked = false;
            else setTimeout(() => { asked = false; }, BETWEEN);
        });
    }
    if (message[0] === RERUN) {
        asked = true;
        shown = false;
    }
    return send.call(this, message);
};

let question, frames;
window.settled = (which) => {
    if (which !== question) [question, frames] = [which, 0];
    const stands = !asked
        && document.querySelector(`[${STATE}]`)?.getAttribute(STATE) === "notRunning"
        && document.querySelector("h1")?.checkVisibility()
        && !document.querySelector("[data-testid=stSkeleton]");  // for what is still being loaded
    frames = stands ? frames + 1 : 0;
    return frames > FRAMES;
};
