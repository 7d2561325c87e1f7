"""A headless Chromium, driven through a pipe in its own protocol (DevTools), with the standard library alone."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--hide-scrollbars'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'),
    '--remote-debugging-pipe',
)
PATIENCE = 60.0


def find_browser():
    """Returns the path of a Chromium, None where there is none; the variable CHROMIUM goes first."""
    return next(filter(None, map(shutil.which, (os.environ.get('CHROMIUM', ''), *NAMES))), None)


class Browser:
    """One page of a browser that runs as long as the context lasts; ``events`` holds all that it reported."""

    def __init__(self, executable, profile):
        self.command = [executable, *FLAGS, f'--user-data-dir={profile}', 'about:blank']
        self.events = []
        self.number = 0

    def __enter__(self):
        theirs_in, self.ours_out = os.pipe()
        self.ours_in, theirs_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4; a shell puts the pipes there.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ['bash', '-c', script, 'browser', *self.command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer = b''
        self.session = None
        (page,) = (t for t in self('Target.getTargets')['targetInfos'] if t['type'] == 'page')
        self.session = self('Target.attachToTarget', targetId=page['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self(f'{domain}.enable')
        return self

    def __exit__(self, *_):
        self.number += 1
        os.write(self.ours_out, json.dumps({'id': self.number, 'method': 'Browser.close'}).encode() + b'\0')
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.ours_in)
        os.close(self.ours_out)

    def __call__(self, method, **parameters):
        """Returns the answer to a command."""
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': parameters}
        if self.session:
            message['sessionId'] = self.session
        os.write(self.ours_out, json.dumps(message).encode() + b'\0')
        return self._wait(lambda answer: answer.get('id') == self.number)['result']

    def open(self, path, width, height):
        """Loads a file at a size of the window in CSS pixels, and returns once it is loaded."""
        self.events.clear()
        mobile = width < 600
        self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self('Page.navigate', url=path.resolve().as_uri())
        if not any(event['method'] == 'Page.loadEventFired' for event in self.events):
            self._wait(lambda event: event.get('method') == 'Page.loadEventFired')

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression, awaited."""
        answer = self('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer
        return answer['result'].get('value')

    def screenshot(self, path):
        """Writes the whole page as a PNG file."""
        answer = self('Page.captureScreenshot', format='png', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer['data']))

    def of(self, method):
        """Returns the parameters of all events of a kind."""
        return [event['params'] for event in self.events if event['method'] == method]

    def _wait(self, wanted):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while b'\0' not in self.buffer:
                readable, _, _ = select.select([self.ours_in], [], [], PATIENCE)
                assert readable, 'the browser does not answer'
                part = os.read(self.ours_in, 1 << 20)
                assert part, 'the browser has ended'
                self.buffer += part
            text, _, self.buffer = self.buffer.partition(b'\0')
            message = json.loads(text)
            if 'method' in message:
                self.events.append(message)
            if wanted(message):
                assert 'error' not in message, message
                return message
        raise AssertionError('the browser does not answer')
