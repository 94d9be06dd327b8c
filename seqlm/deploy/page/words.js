// How it works, in ten sentences, each beside what it explains; in English and in Chinese.

export const LANGUAGES = { English: "en", 中文: "zh-CN" };

/** For each subject its sentences: number, English, Chinese. */
export const HOW = {
  picture: [
    [
      1,
      "A picture is cut into small square patches, and each patch is replaced by the most similar " +
        "of a few hundred typical patches; the number of that typical patch is its code.",
      "先把图片切成小方块，再把每个小方块换成几百个典型小块中最像的一个；这个典型小块的编号就是它的“码”。",
    ],
    [
      2,
      "So a picture becomes a row of tokens, one for each patch from the top left to the bottom " +
        "right, as a text is a row of words.",
      "这样，一张图片就成了一串词元（token）：从左上到右下，每个小方块一个，就像文章是一串词。",
    ],
  ],
  next: [
    [
      3,
      "The model reads the tokens so far and gives every token of its vocabulary a probability of " +
        "being the next one: these are the bars.",
      "模型读入已有的词元，给词表中的每个词元一个“下一个就是它”的概率：图中的条形就是这些概率。",
    ],
    [
      4,
      "One token is drawn from these probabilities and appended, and the model is asked again, until " +
        "the row is full.",
      "按这些概率抽出一个词元，接在后面，再问一次模型，直到整串完成。",
    ],
  ],
  sampling: [
    [
      5,
      "Temperature, top-k and top-p change these probabilities before the draw; where two bars " +
        "stand side by side, the striped one shows the result.",
      "温度、top-k 和 top-p 在抽取之前改变这些概率；并排有两个条形时，带条纹的是改变后的结果。",
    ],
    [
      6,
      "Guidance asks twice, with the digit and without it, and exaggerates the difference.",
      "引导（guidance）问两次：一次告诉模型要画的数字，一次不告诉，然后放大两者的差别。",
    ],
  ],
  surprisal: [
    [
      7,
      "Surprisal is −ln p of the token that came: a dark patch is one the model did not expect.",
      "惊异度（surprisal）是实际出现的词元的 −ln p：颜色深的小方块，是模型没有料到的。",
    ],
  ],
  read: [
    [
      8,
      "To classify, the same model reads a picture and then the token <CLS>, and the digit is simply " +
        "the next token.",
      "分类时，同一个模型先读图片，再读词元 <CLS>；下一个词元就是它认出的数字。",
    ],
  ],
  attention: [
    [
      9,
      "In each layer every head lets each token collect information from the tokens before it, with " +
        "weights that sum to 1; right of the diagonal all is empty, because no token sees the future.",
      "在每一层里，每个注意力头让每个词元从它前面的词元收集信息，权重之和为 1；对角线右边是空的，因为没有词元能看到未来。",
    ],
  ],
  about: [
    [
      10,
      "All of this was learned from one task, predicting the next token, and all that was learned is " +
        "the numbers in this file: no server is asked, and nothing that you paint leaves this page.",
      "这一切都来自同一个任务：预测下一个词元；学到的全部内容就是这个文件里的数字：不问任何服务器，你画的东西也不会离开这个页面。",
    ],
  ],
};
