// Whether something has been on the screen, so that what it needs is only fetched then.

import { useEffect, useRef, useState } from "../vendor/hooks.js";

/** [ref, seen]: `seen` turns true when the element comes near the screen, and stays so. */
export function useInView(margin = "200px") {
  const ref = useRef(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && (setSeen(true), observer.disconnect()),
      { rootMargin: margin },
    );
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, seen];
}
