/* What a search shows first: pages that answer a question before the names of the API. Sphinx asks for these fields. */
"use strict";

var Scorer = {
  score: (result) => {
    const [page, , , , score] = result;
    if (/^(faq|troubleshooting)$/.test(page)) return score + 16;
    if (/^(how-to|tutorials|explanation)\//.test(page)) return score + 12;
    if (/^reference\/api\/(aio|generated\/oq_nb\.[a-z])/.test(page)) return score - 6;
    return score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
