// The code book: pictures as codes, one for each patch, and back.

export class Codebook {
  /** `centers` (K, patch * patch): the typical patches, ink from 0 to 1. */
  constructor({ centers, height, width, patch }) {
    Object.assign(this, { centers, height, width, patch });
    this.size = patch * patch;
    this.nCodes = centers.length / this.size;
    this.rows = height / patch;
    this.columns = width / patch;
    this.nPatches = this.rows * this.columns;
  }

  /** The pixels (patch * patch) of patch `index` of a picture, counted row by row. */
  pixels(index) {
    const top = Math.floor(index / this.columns) * this.patch;
    const left = (index % this.columns) * this.patch;
    return Array.from({ length: this.size }, (_, i) => {
      const [row, column] = [Math.floor(i / this.patch), i % this.patch];
      return (top + row) * this.width + left + column;
    });
  }

  center(code) {
    return this.centers.subarray(code * this.size, (code + 1) * this.size);
  }

  /** The typical patch nearest to each patch of `image` (height * width). */
  encode(image) {
    return Array.from({ length: this.nPatches }, (_, index) => {
      const patch = this.pixels(index).map((place) => image[place]);
      let [nearest, least] = [0, Infinity];
      for (let code = 0; code < this.nCodes; code++) {
        const center = this.center(code);
        const distance = patch.reduce((sum, ink, i) => sum + (ink - center[i]) ** 2, 0);
        if (distance < least) [nearest, least] = [code, distance];
      }
      return nearest;
    });
  }

  /** The picture of `codes`, of which there may be fewer than a whole picture has. */
  decode(codes) {
    const image = new Float32Array(this.height * this.width);
    codes.forEach((code, index) => {
      const center = this.center(code);
      this.pixels(index).forEach((place, i) => (image[place] = center[i]));
    });
    return image;
  }
}
