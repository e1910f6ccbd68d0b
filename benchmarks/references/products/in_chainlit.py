"""The same answers in Chainlit: `chainlit run in_chainlit.py`."""

import chainlit

from benchmarks.agents import answer


async def speak(asked: chainlit.Message) -> None:
    told = chainlit.Message(content="")
    async for text in answer(asked.content):
        await told.stream_token(text)
    await told.update()


chainlit.on_message(speak)
