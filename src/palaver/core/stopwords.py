"""Stop words for search. They are removed from queries only, never from the indexed text."""

from __future__ import annotations

_ENGLISH = """
a about after again all also am an and any anyone anything are as ask at be because been before being both but by
can cannot can't could couldn't did didn't do does doesn't doing don't each else ever every for from get gets got
had has have having he hello help her here hers hi him his how how's however i i'd i'll i'm i've if in into is isn't
it it's its itself just know let let's like may me might mine more most much must my need no nor not now of off on
once one only or other our ours out over own please same shall she should show so some someone something such tell
than thank thanks that that's the their theirs them then there there's these they thing things this those through
to too under until up us use used using very want wants was wasn't way we well were what what's when where which
while who whom whose why will with without won't would yes yet you you'd you'll you're you've your yours
"""

_CHINESE = """
请问 请教 你好 您好 谢谢 麻烦 帮我 帮忙 告诉我 告诉 想知道 想问 我想 我要 我们 你们 他们 她们 它们 咱们 大家
什么 什么样 什么时候 甚么 怎么 怎么办 怎么样 怎么做 怎样 如何 为什么 为何 为啥 何时 何处 多少 多久 几个 几种
哪些 哪个 哪里 哪儿 哪种 哪一 是否 是不是 能否 可否 能不能 可不可以 有没有 有哪些 是什么 可以 应该 需要 一下
一个 一些 一种 这个 那个 这些 那些 这里 那里 这样 那样 这种 那种 以及 或者 还是 因为 所以 如果 但是 而且 并且
关于 对于 的话 就是 不是 没有 还有 介绍一下 請問 甚麼 什麼 怎麼 為什麼 哪裡 這個 那個 這些
"""

ENGLISH = frozenset(_ENGLISH.split())
CHINESE = frozenset(_CHINESE.split())
STRONG_PARTICLES = frozenset("的了吗呢吧啊嘛呀嗎麼么")
"""Hardly ever part of a meaningful word."""
PARTICLES = STRONG_PARTICLES | frozenset(
    "是在有和与及或就都也很把被对从向到不我你您他她它这那之其而但个要会能给让为以该"
)
"""Mostly between words, sometimes part of one (在线, 有效): pairs that contain them have a lower weight."""
