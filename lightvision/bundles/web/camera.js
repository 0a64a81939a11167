// A picture from the camera, where the browser has one and its owner agrees. Browsers ask, and allow it only to pages
// from https or from this very machine.

export const present = Boolean(navigator.mediaDevices?.getUserMedia);

export class Camera {
  constructor(dialog, video, took, failed) {
    Object.assign(this, { dialog, video, took, failed });
    dialog.addEventListener("close", () => this.stop());
  }

  async open() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" } } });
    } catch (error) {
      const reason = error.name === "NotAllowedError" ? "this page may not use it" : "there is none that can be used";
      this.failed(`The camera cannot be opened: ${reason}.`);
      return;
    }
    this.video.srcObject = this.stream;
    this.dialog.showModal();
  }

  shoot() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return; // no picture has come yet
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    canvas.toBlob((blob) => this.took(new File([blob], "camera.png", { type: "image/png" })));
    this.dialog.close();
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
  }
}
