import asyncio, resource, secrets, time, threading
from sqlalchemy import text
from baatcheet.events.relay import Relay
from baatcheet.kit.ids import new_id
from tests.webhooks.conftest import Hooks, Person

def rss():
    for l in open("/proc/self/status"):
        if l.startswith("VmRSS"): return int(l.split()[1])/1024

async def test_measure(hooks: Hooks, alice: Person) -> None:
    for _ in range(50):
        await hooks.run("INSERT INTO webhooks (id,user_id,url,events) VALUES (:i,:u,'http://127.0.0.1:1/','{*}')", i=new_id(), u=alice.user_id)
    c = new_id()
    await hooks.run("INSERT INTO conversations (id,user_id) VALUES (:i,:u)", i=c, u=alice.user_id)
    for _ in range(500):
        await hooks.run("INSERT INTO messages (id,conversation_id,user_id,role,content) VALUES (:i,:c,:u,'user',:t)", i=new_id(), c=c, u=alice.user_id, t=secrets.token_urlsafe(24*1024))
    start, peak, stop = rss(), 0.0, False
    def watch():
        nonlocal peak
        while not stop:
            peak = max(peak, rss()); time.sleep(0.01)
    threading.Thread(target=watch, daemon=True).start()
    relay = Relay(hooks.db, {"webhooks": hooks.webhooks.relayed})
    t0 = time.monotonic(); log = []
    while time.monotonic() - t0 < 30:
        t = time.monotonic()
        try: n = await relay.relay()
        except Exception as e: n = type(e).__name__
        log.append((n, round(time.monotonic()-t,2)))
        if n == 0: break
    stop = True
    open("/tmp/measure.txt","a").write(str(("start", start, "peak", peak, "took", time.monotonic()-t0, log))+"\n")
    print("RESULT start", start, "peak", peak, "took", time.monotonic()-t0, log, await hooks.count("webhook_deliveries"), await hooks.count("events","poisoned is not null"))
    await hooks.run("TRUNCATE webhook_deliveries CASCADE")
